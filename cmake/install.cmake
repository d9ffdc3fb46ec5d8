# Install, export and package. Only what exists is installed.
