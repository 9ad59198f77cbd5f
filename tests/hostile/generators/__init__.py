"""Makers of hostile files: images, data sets, bundles, exports, manifests, names, environments."""
