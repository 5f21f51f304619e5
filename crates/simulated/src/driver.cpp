// In the place of NVIDIA's driver, libcuda.so.1, which says how many GPUs there are (SIMULATED_DEVICES, else 2); and of the two functions of the
// CUDA runtime that say how much memory is free. It is preloaded: libtorch may bring the true runtime.

#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>

namespace {

thread_local int current = 0;

} // namespace

extern "C" {

int cuInit(unsigned) { return 0; }

int cuDeviceGetCount(int *count) {
    const char *devices = std::getenv("SIMULATED_DEVICES");
    *count = devices ? std::atoi(devices) : 2;
    return 0;
}

int cudaSetDevice(int index) {
    current = index;
    return 0;
}

int cudaMemGetInfo(size_t *free, size_t *total) {
    using Memory = void (*)(int, size_t *, size_t *);
    const auto memory = reinterpret_cast<Memory>(dlsym(RTLD_DEFAULT, "simulated_memory"));
    if (!memory) return 1;
    memory(current, free, total);
    return 0;
}

} // extern "C"
