"""What pruners, quantisers and distillers share."""

from ._compressor import Compressor as Compressor
