// In the place of NVIDIA's driver, libcuda.so.1: says how many GPUs there are (SIMULATED_DEVICES, else 2).

#include <cstdlib>

extern "C" {

int cuInit(unsigned) { return 0; }

int cuDeviceGetCount(int *count) {
    const char *devices = std::getenv("SIMULATED_DEVICES");
    *count = devices ? std::atoi(devices) : 2;
    return 0;
}

} // extern "C"
