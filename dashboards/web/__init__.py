"""The live pages of `postel serve`."""
