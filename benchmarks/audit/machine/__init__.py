"""Reading machine code: instructions, control flow, how often each runs, and what a kernel takes."""
