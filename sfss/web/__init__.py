"""The HTTP face. Sees ``files`` only; turns requests into its calls, and its errors into problem documents."""
