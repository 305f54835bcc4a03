// The moesaic binary.
int main() { return 0; }
