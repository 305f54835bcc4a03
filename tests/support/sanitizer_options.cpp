// How sanitizers treat the tests, which ask for more memory than there is: the answer is null, as from the
// system. The sanitizers' run-time libraries call these functions; nothing does in a build without them.
extern "C" {
const char* __asan_default_options();
const char* __tsan_default_options();

const char* __asan_default_options() {
    return "allocator_may_return_null=1";
}

const char* __tsan_default_options() {
    return "allocator_may_return_null=1";
}
}
