"""What is deployed as functions: a folder each, with a handler of a few lines on top of `lexora.entry`."""
