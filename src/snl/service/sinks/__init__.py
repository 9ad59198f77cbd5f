"""Sinks: receivers of inspections, such as a webhook, an MQTT broker or a file."""
