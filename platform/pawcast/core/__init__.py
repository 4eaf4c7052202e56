"""What every room builds on: names, settings, records, atomic writes, plugins and the console."""
