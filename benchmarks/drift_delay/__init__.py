"""How soon the drift monitor detects a change, and how often it alarms without one."""
