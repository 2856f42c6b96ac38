"""Methods that read every coordinate of the stack: T passes and T copies."""
