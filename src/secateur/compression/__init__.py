"""Compression by configuration, under the import paths of NNI 3.0."""
