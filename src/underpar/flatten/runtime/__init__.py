"""What a script carries in place of modules of ours: the same behaviour for a configuration that was checked beforehand."""
