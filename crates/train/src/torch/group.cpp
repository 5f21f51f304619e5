// Processes that compute together, over libtorch's own c10d: a TCPStore to meet in, gloo to exchange tensors of the CPU.

#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstdlib>

#include "caught.hpp"

using at::Tensor;
using std::chrono::milliseconds;

// As in libtorch 2.11 itself (`operator new(0x1e8)` in ProcessGroupGloo::split): gloo's own headers would make it no other.
static_assert(sizeof(c10d::ProcessGroupGloo) == 488);

namespace {

using Store = c10::intrusive_ptr<c10d::TCPStore>;
using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;

} // namespace

extern "C" {

// A store that this process serves (at any port where it is 0), or one that another serves. Null where that could not be.
Store *simla_store_open(const char *host, uint16_t port, bool serve, int64_t timeout_ms, char *message, size_t length) {
    Store *store = nullptr;
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
        FLAGS_caffe2_log_level = 3; // errors come as exceptions; their log has pages of addresses
    }
    caught(message, length, [&] {
        c10d::TCPStoreOptions options;
        options.port = port;
        options.isServer = serve;
        options.waitWorkers = false;
        options.timeout = milliseconds(timeout_ms);
        store = new Store(c10::make_intrusive<c10d::TCPStore>(host, options));
    });
    return store;
}

uint16_t simla_store_port(const Store *store) { return (*store)->getPort(); }

bool simla_store_set(const Store *store, const char *key, const uint8_t *bytes, size_t count, char *message,
                     size_t length) {
    return caught(message, length, [&] { (*store)->set(key, std::vector<uint8_t>(bytes, bytes + count)); });
}

// Waits for the key; writes at most `room` bytes of it, and how many it has.
bool simla_store_get(const Store *store, const char *key, int64_t timeout_ms, uint8_t *bytes, size_t room,
                     size_t *count, char *message, size_t length) {
    return caught(message, length, [&] {
        (*store)->wait({key}, milliseconds(timeout_ms));
        const auto value = (*store)->get(key);
        *count = value.size();
        std::copy_n(value.begin(), std::min(room, value.size()), bytes);
    });
}

void simla_store_close(Store *store) { delete store; }

// Null where the group did not come together within the time. `address` is that of this machine for the others; empty for the one that
// its name or GLOO_SOCKET_IFNAME says.
Group *simla_group_join(const Store *store, const char *name, const char *address, int rank, int world,
                        int64_t timeout_ms, char *message, size_t length) {
    Group *group = nullptr;
    caught(message, length, [&] {
        auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
        options->devices = {*address ? c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                     : c10d::ProcessGroupGloo::createDefaultDevice()};
        auto named = c10::make_intrusive<c10d::PrefixStore>(name, *store);
        group = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(named, rank, world, options));
    });
    return group;
}

void simla_group_leave(Group *group) {
    char message[1];
    caught(message, sizeof message, [&] { delete group; });
}

// gloo takes a tensor's memory for its values, one after the other: the caller sees to it that they are.

bool simla_group_sum(const Group *group, const Tensor *x, char *message, size_t length) {
    return caught(message, length, [&] {
        std::vector<Tensor> tensors{*x};
        (*group)->allreduce(tensors)->wait();
    });
}

bool simla_group_broadcast(const Group *group, const Tensor *x, char *message, size_t length) {
    return caught(message, length, [&] {
        std::vector<Tensor> tensors{*x};
        (*group)->broadcast(tensors)->wait(); // from rank 0
    });
}

// `all` is `[world x n, ...]`, in the order of the ranks.
bool simla_group_gather(const Group *group, const Tensor *x, const Tensor *all, char *message, size_t length) {
    return caught(message, length, [&] {
        Tensor input = *x, output = *all;
        (*group)->_allgather_base(output, input)->wait();
    });
}

bool simla_group_send(const Group *group, const Tensor *x, int to, char *message, size_t length) {
    return caught(message, length, [&] {
        std::vector<Tensor> tensors{*x};
        (*group)->send(tensors, to, 0)->wait();
    });
}

// Waits until `from` has sent, or is gone.
bool simla_group_receive(const Group *group, const Tensor *x, int from, int64_t timeout_ms, char *message,
                         size_t length) {
    return caught(message, length, [&] {
        std::vector<Tensor> tensors{*x};
        (*group)->recv(tensors, from, 0)->wait(milliseconds(timeout_ms));
    });
}

// The stream on which torch computes on a GPU now: what NCCL is given to work on.
bool simla_cuda_stream(int64_t gpu, void **stream, char *message, size_t length) {
    return caught(message, length, [&] {
        const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(gpu));
        *stream = c10::impl::VirtualGuardImpl(c10::kCUDA).getStream(device).native_handle();
    });
}
}
