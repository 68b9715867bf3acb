"""Studies: measurements that ask more of a model than its answers to the test split."""
