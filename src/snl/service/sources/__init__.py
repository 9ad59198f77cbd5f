"""Sources of images: folders, cameras, streams, videos and MQTT topics."""
