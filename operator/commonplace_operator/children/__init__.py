"""One function per child manifest. Pure."""
