"""Short versions for flat scripts: what a program needs that resumes nothing and reads only what it wrote itself."""
