"""The file formats of data sets: lists, tar shards, TFRecord and RecordIO, and their indexes."""
