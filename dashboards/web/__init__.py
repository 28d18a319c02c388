"""The live page of `postel serve`."""
