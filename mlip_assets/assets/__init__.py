"""One module an asset, named as the asset: inputs, science, value with its metadata."""
