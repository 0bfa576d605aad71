"""A constant HTTP load that counts every failure, and journals that workers keep of their own lives."""
