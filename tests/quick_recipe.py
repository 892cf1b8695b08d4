"""A recipe for the digits that runs in seconds."""

SHORT = """
model: {use: "digits_recipe:network", arguments: {width: 8}}
data:
  train: digits_recipe:training_batches
  calibrate: {use: "digits_recipe:calibration_batches", arguments: {count: 2}}
  example: digits_recipe:example
evaluate: digits_recipe:accuracy
steps:
  - train: {epochs: 1, loss: "digits_recipe:cross_entropy"}
  - prune: {ratio: 0.5}
  - quantize:
  - deploy: {file: digits.onnx, runs: 2}
"""
