// Removed as soon as the floor has sources.
