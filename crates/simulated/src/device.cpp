// In the place of libtorch_cuda.so: a GPU whose memory the host cannot touch, and whose kernels are those of the CPU. What it finds, and what
// not, is said in lib.rs.
//
// - A pointer of the device lies in pages without any right. Its bytes are in a second range of pages, at the same offset, which only this
//   file knows. An operation runs on tensors of the CPU over those.
// - Whatever has no function of its own here comes to `on_the_cpu`, with its operands; what libtorch composes of others arrives in parts, as
//   on a GPU.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <signal.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <thread>

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using Lock = std::lock_guard<std::mutex>;

namespace {

constexpr auto GPU = c10::DeviceType::CUDA;
constexpr c10::DispatchKeySet KEYS(c10::DispatchKey::CUDA);
constexpr size_t PAGE = 4096, BLOCK = 512;
constexpr size_t SPACE = 1ull << 38; // addresses of each device

size_t setting(const char *name, size_t usual) {
    const char *value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : usual;
}

DeviceIndex devices() {
    static const auto count = static_cast<DeviceIndex>(setting("SIMULATED_DEVICES", 2));
    return count;
}

thread_local DeviceIndex current = 0;

// The one of its kind, which outlives whatever the process destroys at its end.
template <class T> T &the() {
    static T *one = new T;
    return *one;
}

char *pages(size_t bytes, int rights) {
    void *start = mmap(nullptr, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK(start != MAP_FAILED, "no ", bytes, " bytes of addresses");
    return static_cast<char *>(start);
}

// ---- Memory of the devices

struct Memory {
    std::mutex mutex;
    const size_t limit = setting("SIMULATED_KIB", 16 << 20) << 10;
    char *const forbidden = pages(SPACE * devices(), PROT_NONE);
    char *const real = pages(SPACE * devices(), PROT_READ | PROT_WRITE);
    std::vector<size_t> end = std::vector<size_t>(devices()), held = end, peak = end;
    std::map<size_t, size_t> sizes;                        // by offset
    std::map<std::pair<int, size_t>, std::vector<size_t>> freed; // by device and size

    void *take(DeviceIndex index, size_t asked) {
        const Lock lock(mutex);
        const size_t bytes = (asked + BLOCK - 1) / BLOCK * BLOCK;
        if (held[index] + bytes > limit) {
            C10_THROW_ERROR(OutOfMemoryError, "CUDA out of memory. Tried to allocate " + std::to_string(asked >> 20) + " MiB. GPU " +
                                                  std::to_string(index) + " has a total capacity of " +
                                                  std::to_string(limit >> 20) + " MiB.");
        }
        auto &same = freed[{index, bytes}];
        size_t offset = index * SPACE + end[index];
        if (same.empty()) {
            TORCH_CHECK((end[index] += bytes) <= SPACE, "no addresses left");
        } else {
            offset = same.back();
            same.pop_back();
        }
        sizes[offset] = bytes;
        peak[index] = std::max(peak[index], held[index] += bytes);
        std::memset(real + offset, 0xff, bytes); // no number of any floating type
        return forbidden + offset;
    }

    void give(void *pointer) {
        const Lock lock(mutex);
        const size_t offset = static_cast<char *>(pointer) - forbidden, bytes = sizes.at(offset);
        const int index = offset / SPACE;
        held[index] -= bytes;
        freed[{index, bytes}].push_back(offset);
        const size_t from = (offset + PAGE - 1) / PAGE * PAGE, to = (offset + bytes) / PAGE * PAGE;
        if (to > from) madvise(real + from, to - from, MADV_DONTNEED); // the system's again
    }

    bool of_device(const void *pointer) const { return pointer >= forbidden && pointer < forbidden + SPACE * devices(); }
    bool is_real(const void *pointer) const { return pointer >= real && pointer < real + SPACE * devices(); }
    void *behind(const void *pointer) const { return real + (static_cast<const char *>(pointer) - forbidden); }
};

struct DeviceAllocator final : c10::Allocator {
    static void release(void *pointer) { the<Memory>().give(pointer); }
    c10::DataPtr allocate(size_t bytes) override {
        void *pointer = bytes == 0 ? nullptr : the<Memory>().take(current, bytes);
        return {pointer, pointer, &release, Device(GPU, current)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void *to, const void *from, size_t bytes) const override {
        std::memcpy(the<Memory>().behind(to), the<Memory>().behind(from), bytes);
    }
};

// ---- Pinned memory of the host: while a copy is under way its pages lack the right to be written, or any

struct Pinned {
    std::mutex mutex;
    std::map<char *, size_t> blocks, busy; // whole pages
    std::vector<std::pair<char *, size_t>> released;

    std::map<char *, size_t>::iterator find(const void *pointer) {
        const auto next = blocks.upper_bound(static_cast<char *>(const_cast<void *>(pointer)));
        const bool inside = next != blocks.begin() && pointer < std::prev(next)->first + std::prev(next)->second;
        return inside ? std::prev(next) : blocks.end();
    }
    bool has(const void *pointer) {
        const Lock lock(mutex);
        return find(pointer) != blocks.end();
    }
    void begin_copy(const void *pointer, int rights) {
        const Lock lock(mutex);
        const auto [start, bytes] = *find(pointer);
        busy[start] = bytes;
        mprotect(start, bytes, rights);
    }
    void all_copies_end() {
        const Lock lock(mutex);
        for (const auto &[start, bytes] : busy) mprotect(start, bytes, PROT_READ | PROT_WRITE);
        for (const auto &[start, bytes] : released) munmap(start, bytes);
        busy.clear();
        released.clear();
    }
    // As of torch's allocator: what is freed during a copy is not used again before that has ended.
    static void release(void *pointer) {
        Pinned &self = the<Pinned>();
        const Lock lock(self.mutex);
        const auto block = self.blocks.find(static_cast<char *>(pointer));
        if (self.busy.count(block->first)) {
            self.released.push_back(*block);
        } else {
            munmap(block->first, block->second);
        }
        self.blocks.erase(block);
    }
};

struct PinnedAllocator final : c10::Allocator {
    c10::DataPtr allocate(size_t bytes) override {
        const size_t whole = std::max<size_t>(1, (bytes + PAGE - 1) / PAGE) * PAGE;
        char *start = pages(whole, PROT_READ | PROT_WRITE);
        const Lock lock(the<Pinned>().mutex);
        the<Pinned>().blocks[start] = whole;
        return {start, start, &Pinned::release, c10::DeviceType::CPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &Pinned::release; }
    void copy_data(void *to, const void *from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

// ---- What happened: SIMULATED_LOG gets it as JSON when the process ends

struct Log {
    using Counts = std::map<std::string, size_t>;
    std::mutex mutex;
    Counts operations, waits, beside;
    const std::thread::id opener = std::this_thread::get_id();

    void operation(const std::string &name, size_t times = 1) {
        const Lock lock(mutex);
        operations[name] += times;
    }
    // Where the host waits, by whatever stands for it: by the thread that opened the device, or beside it.
    void wait(const std::string &why) {
        the<Pinned>().all_copies_end();
        const Lock lock(mutex);
        ++(std::this_thread::get_id() == opener ? waits : beside)[why];
    }
    void write() {
        const char *path = std::getenv("SIMULATED_LOG");
        FILE *file = path ? std::fopen(path, "w") : nullptr;
        if (!file) return;
        const Lock lock(mutex);
        const auto object = [&](const char *name, const Counts &counts) {
            std::fprintf(file, "\"%s\": {", name);
            const char *between = "";
            for (const auto &[what, count] : counts) {
                std::fprintf(file, "%s\n  \"%s\": %zu", between, what.c_str(), count);
                between = ",";
            }
            std::fprintf(file, "},\n");
        };
        std::fprintf(file, "{");
        object("operations", operations);
        object("waits", waits);
        object("beside", beside);
        std::fprintf(file, "\"peak_bytes\": [");
        for (DeviceIndex i = 0; i < devices(); ++i) std::fprintf(file, "%s%zu", i ? ", " : "", the<Memory>().peak[i]);
        std::fprintf(file, "]}\n");
        std::fclose(file);
    }
};

// ---- Device, hooks, generator

Device known(Device device) { return device.index() < 0 ? Device(GPU, current) : device; }

void waited(const char *why = "synchronize") { the<Log>().wait(why); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
    c10::DeviceType type() const override { return GPU; }
    Device getDevice() const override { return Device(GPU, current); }
    void setDevice(Device device) const override {
        TORCH_CHECK(device.index() < devices(), "CUDA error: invalid device ordinal");
        uncheckedSetDevice(device);
    }
    void uncheckedSetDevice(Device device) const noexcept override { current = known(device).index(); }
    Device exchangeDevice(Device device) const override {
        const Device old = getDevice();
        setDevice(device);
        return old;
    }
    c10::Stream getStream(Device device) const override { return c10::Stream(c10::Stream::DEFAULT, known(device)); }
    c10::Stream getDefaultStream(Device device) const override { return getStream(device); }
    c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
    DeviceIndex deviceCount() const noexcept override { return devices(); }
    void record(void **, const c10::Stream &, DeviceIndex, c10::EventFlag) const override {}
    void block(void *, const c10::Stream &) const override {}
    bool queryEvent(void *) const override { return true; }
    bool queryStream(const c10::Stream &) const override { return true; }
    void synchronizeStream(const c10::Stream &) const override { waited(); }
    void synchronizeEvent(void *) const override { waited(); }
    void synchronizeDevice(DeviceIndex) const override { waited(); }
};

// Draws other numbers than the CPU's from the same seed.
struct DeviceGenerator final : at::CPUGeneratorImpl {
    using at::CPUGeneratorImpl::CPUGeneratorImpl;
    void set_current_seed(uint64_t seed) override { at::CPUGeneratorImpl::set_current_seed(seed ^ 0x9e3779b97f4a7c15); }
};

struct Generators {
    std::mutex mutex;
    std::map<DeviceIndex, at::Generator> all;
};

at::Generator &generator(DeviceIndex index) {
    const Lock lock(the<Generators>().mutex);
    at::Generator &one = the<Generators>().all[index < 0 ? current : index];
    return one.defined() ? one : one = at::make_generator<DeviceGenerator>(1234567);
}

struct CUDAHooks final : at::CUDAHooksInterface {
    CUDAHooks(at::CUDAHooksArgs) {}
    void init() const override {}
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return devices() > 0; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    bool hasCUDA() const override { return true; }
    bool hasCUDART() const override { return true; }
    DeviceIndex deviceCount() const override { return devices(); }
    int getNumGPUs() const override { return devices(); }
    DeviceIndex current_device() const override { return current; }
    DeviceIndex getCurrentDevice() const override { return current; }
    void setCurrentDevice(DeviceIndex index) const override { current = index; }
    DeviceIndex exchangeDevice(DeviceIndex index) const override { return std::exchange(current, index); }
    DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchangeDevice(index); }
    const at::Generator &getDefaultGenerator(DeviceIndex index) const override { return generator(index); }
    at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<DeviceGenerator>(1234567); }
    Device getDeviceFromPtr(void *pointer) const override {
        TORCH_CHECK(the<Memory>().of_device(pointer), "not a pointer of the device");
        return Device(GPU, (static_cast<char *>(pointer) - the<Memory>().forbidden) / SPACE);
    }
    bool isPinnedPtr(const void *pointer) const override { return the<Pinned>().has(pointer); }
    c10::Allocator *getPinnedMemoryAllocator() const override { return &the<PinnedAllocator>(); }
    c10::Allocator *getCUDADeviceAllocator() const override { return &the<DeviceAllocator>(); }
    void deviceSynchronize(DeviceIndex) const override { waited(); }
};

// ---- Tensors

// A tensor of the CPU over the same bytes.
Tensor on_host(const Tensor &x) {
    const auto options = x.options().device(c10::kCPU).requires_grad(false);
    const auto &storage = x.storage();
    if (storage.nbytes() == 0) return at::empty_strided(x.sizes(), x.strides(), options);
    const auto elements = static_cast<int64_t>(storage.nbytes() / x.itemsize());
    const Tensor whole = at::from_blob(the<Memory>().behind(storage.data()), {elements}, options);
    return whole.as_strided(x.sizes(), x.strides(), x.storage_offset());
}

Tensor new_strided(at::IntArrayRef size, at::IntArrayRef stride, at::ScalarType type) {
    return at::detail::empty_strided_generic(size, stride, &the<DeviceAllocator>(), KEYS, type);
}

Tensor on_device(const Tensor &x, Device device, at::ScalarType type) {
    const c10::DeviceGuard guard(device);
    const Tensor y = new_strided(x.sizes(), x.strides(), type);
    on_host(y).copy_(x);
    return y;
}

Tensor &copy(Tensor &self, const Tensor &source, bool non_blocking) {
    if (self.is_same(source)) return self;
    const at::AutoDispatchBelowAutograd below;
    const bool to = self.is_cuda(), from = source.is_cuda(), within = to && from;
    const bool converts = self.dtype() != source.dtype();
    const std::string name = within ? (converts ? "conversion" : "copy") : to ? "copy to the device" : "copy to the host";
    the<Log>().operation(name);
    const void *hosts = to ? source.storage().data() : self.storage().data();
    const bool pinned = !within && the<Pinned>().has(hosts), asynchronous = non_blocking && pinned;
    if (!within && !asynchronous) waited((name + (pinned ? "" : ", not pinned")).c_str());
    (to ? on_host(self) : Tensor(self)).copy_(from ? on_host(source) : source);
    if (asynchronous) the<Pinned>().begin_copy(hosts, to ? PROT_READ : PROT_NONE);
    return self;
}

at::Scalar local_scalar(const Tensor &self) {
    waited("_local_scalar_dense");
    return at::_local_scalar_dense(on_host(self));
}

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>, std::optional<Device> device,
             std::optional<bool>, std::optional<at::MemoryFormat> format) {
    const c10::DeviceGuard guard(known(device.value_or(Device(GPU))));
    return at::detail::empty_generic(size, &the<DeviceAllocator>(), KEYS, c10::dtype_or_default(type), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                     std::optional<Device> device, std::optional<bool>) {
    const c10::DeviceGuard guard(known(device.value_or(Device(GPU))));
    return new_strided(size, stride, c10::dtype_or_default(type));
}

const Tensor &resize_in_place(const Tensor &self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
    self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
    const size_t bytes = (self.numel() + self.storage_offset()) * self.itemsize();
    auto *storage = self.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
    if (bytes > storage->nbytes()) {
        const c10::DeviceGuard guard(self.device());
        auto larger = the<DeviceAllocator>().allocate(bytes);
        if (storage->nbytes() > 0) the<DeviceAllocator>().copy_data(larger.get(), storage->data(), storage->nbytes());
        storage->set_data_ptr_noswap(std::move(larger));
        storage->set_nbytes(bytes);
    }
    return self;
}

// ---- Every other operation

bool is_one_of(const std::string &name, const std::set<std::string> &names) { return names.count(name) > 0; }

// Those that ask the device how large their result is.
bool waits(const std::string &name) {
    return is_one_of(name, {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal", "bincount",
                            "repeat_interleave"});
}

// Those that copy indices of the host.
bool takes_indices_of_the_host(const std::string &name) { return is_one_of(name, {"index", "index_put_", "_index_put_impl_"}); }

// What TF32 leaves of a factor: ten bits behind the point.
Tensor cut(const Tensor &x) {
    const Tensor bits = x.view(at::kInt);
    return bits.add(1 << 12).bitwise_and(~((1 << 13) - 1)).view(at::kFloat);
}

// One operation: its operands here and there.
struct Call {
    std::string name;                             // without "aten::"
    std::vector<std::pair<Tensor, Tensor>> given; // of the device, over the same bytes on the host
    std::vector<Tensor> strangers;                // of the host
    std::optional<Device> device;

    void refuse(Device other) const {
        TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ",
                    device.value_or(Device(GPU, 0)), " and ", other, "! (", name, ")");
    }
    Tensor there(const Tensor &x) {
        if (!x.defined() || !x.is_cuda()) {
            if (x.defined()) strangers.push_back(x);
            return x;
        }
        if (device && *device != x.device()) refuse(x.device());
        device = x.device();
        for (const auto &[ours, hosts] : given) {
            if (ours.is_same(x)) return hosts;
        }
        given.emplace_back(x, on_host(x));
        return given.back().second;
    }
    c10::IValue there(const c10::IValue &value) {
        if (value.isTensor()) return there(value.toTensor());
        if (value.isTensorList()) {
            c10::List<Tensor> list;
            for (const Tensor x : value.toTensorList()) list.push_back(there(x));
            return list;
        }
        if (value.isOptionalTensorList()) {
            c10::List<std::optional<Tensor>> list;
            for (const std::optional<Tensor> x : value.toOptionalTensorList()) {
                list.push_back(x ? std::optional<Tensor>(there(*x)) : std::nullopt);
            }
            return list;
        }
        if (value.isDevice() && value.toDevice().is_cuda()) {
            device = known(value.toDevice());
            return Device(c10::kCPU);
        }
        return value;
    }
    // As a GPU does: scalars of the host are taken, and indices where they may be; nothing else is.
    void check() const {
        TORCH_CHECK(device, name, " reached the device without a tensor of it");
        bool wait = waits(name);
        for (const Tensor &x : strangers) {
            if (x.dim() > 0 && !takes_indices_of_the_host(name)) refuse(c10::kCPU);
            wait = wait || x.dim() > 0;
        }
        for (size_t i = 1; i < given.size() && takes_indices_of_the_host(name); ++i) {
            wait = wait || given[i].first.scalar_type() == at::kBool;
        }
        if (wait) waited(name.c_str());
    }
    // What an operation gives: an operand itself, which may have grown, or something new.
    Tensor back(const Tensor &x) const {
        const auto is_ours = [](const Tensor &x) { return x.numel() == 0 || the<Memory>().is_real(x.storage().data()); };
        for (const auto &[ours, hosts] : given) {
            if (x.defined() && hosts.is_same(x)) {
                if (hosts.sizes() != ours.sizes() || !is_ours(hosts)) {
                    on_host(resize_in_place(ours, hosts.sizes(), {})).copy_(hosts);
                }
                return ours;
            }
        }
        TORCH_CHECK(!x.defined() || x.numel() == 0 || !is_ours(x), name, " gives a view, which is not implemented");
        return x.defined() ? on_device(x, *device, x.scalar_type()) : x;
    }
    c10::IValue back(const c10::IValue &value) const {
        if (!value.isTensorList()) return value.isTensor() ? back(value.toTensor()) : value;
        c10::List<Tensor> list;
        for (const Tensor x : value.toTensorList()) list.push_back(back(x));
        return list;
    }
    // Products in f32 whose factors are cut, unless that is forbidden.
    bool in_tf32() const {
        const bool is_product = is_one_of(name, {"mm", "addmm", "bmm", "baddbmm"});
        return is_product && given.back().first.scalar_type() == at::kFloat && at::globalContext().allowTF32CuBLAS() &&
               !at::NoTF32Guard::should_disable_tf32();
    }
};

// Operations on lists are one where each list is of one type, and sizes and strides of both are the same; else libtorch takes one tensor
// after the other.
size_t kernels(const std::string &name, const c10::IValue &self, const c10::IValue &other) {
    if (!is_one_of(name, {"_foreach_copy_", "_foreach_add_"})) return 1;
    const auto to = self.toTensorVector(), from = other.toTensorVector();
    bool at_once = name == "_foreach_copy_" || to[0].dtype() == from[0].dtype();
    for (size_t i = 0; i < to.size(); ++i) {
        at_once = at_once && to[i].dtype() == to[0].dtype() && from[i].dtype() == from[0].dtype() &&
                  to[i].sizes() == from[i].sizes() && to[i].strides() == from[i].strides();
    }
    return at_once ? 1 : to.size();
}

void on_the_cpu(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
    const size_t arguments = op.schema().arguments().size(), returns = op.schema().returns().size();
    Call call{op.operator_name().name.substr(6)};
    const size_t first = stack->size() - arguments;
    const size_t operations = arguments < 2 ? 1 : kernels(call.name, (*stack)[first], (*stack)[first + 1]);
    for (size_t i = stack->size() - arguments; i < stack->size(); ++i) (*stack)[i] = call.there((*stack)[i]);
    call.check();
    const at::AutoDispatchBelowAutograd below;
    const bool tf32 = call.in_tf32();
    the<Log>().operation(toString(op.operator_name()).substr(6) + (tf32 ? " in TF32" : ""), operations);
    // The product with which `simla bench step` looks for the peak of a GPU would take minutes: it is not computed.
    if (call.name == "mm" && call.given[0].first.numel() >= 1 << 26) {
        torch::jit::drop(*stack, arguments);
        stack->push_back(call.given[0].first);
        return;
    }
    for (size_t i = 0; tf32 && i < arguments; ++i) {
        const std::string &argument = op.schema().arguments()[i].name();
        const bool is_factor = is_one_of(argument, {"mat1", "mat2", "batch1", "batch2"}) ||
                               (argument == "self" && is_one_of(call.name, {"mm", "bmm"}));
        c10::IValue &value = (*stack)[stack->size() - arguments + i];
        if (is_factor) value = cut(value.toTensor());
    }
    const bool random = op.hasTag(at::Tag::nondeterministic_seeded);
    at::Generator hosts = at::detail::getDefaultCPUGenerator(), &ours = generator(call.device->index());
    const Tensor state = random ? hosts.get_state() : Tensor();
    if (random) hosts.set_state(ours.get_state());
    op.callBoxed(stack);
    if (random) {
        ours.set_state(hosts.get_state());
        hosts.set_state(state);
    }
    for (size_t i = stack->size() - returns; i < stack->size(); ++i) (*stack)[i] = call.back((*stack)[i]);
}

// ---- Attention: one operation, as of the memory-efficient kernel, with what that asks of its operands

using Maybe = std::optional<Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

int64_t choose_attention(const Tensor &q, const Tensor &k, const Tensor &v, const Maybe &bias, double, bool, std::optional<double>, bool) {
    bool fused = !bias || !bias->requires_grad();
    for (const Tensor *x : {&q, &k, &v}) {
        const bool kind = x->scalar_type() == at::kFloat || x->scalar_type() == at::kBFloat16;
        fused = fused && kind && x->scalar_type() == q.scalar_type() && x->dim() == 4 && x->stride(3) == 1 && x->size(3) % 8 == 0;
    }
    if (!fused) {
        the<Log>().operation("(attention that no fused kernel takes)");
        return static_cast<int64_t>(at::SDPBackend::math);
    }
    // What libtorch 2.11 takes on an H100, unless it is told otherwise.
    const bool by_cudnn = at::globalContext().userEnabledCuDNNSDP() && q.scalar_type() == at::kBFloat16;
    if (by_cudnn) the<Log>().operation("(attention of cuDNN)");
    return static_cast<int64_t>(at::SDPBackend::efficient_attention);
}

struct Weighed {
    double scale;
    Tensor q, k, v, probabilities, kept; // in f32; kept holds 0 or 1 / (1 - p)

    Weighed(const Tensor &query, const Tensor &key, const Tensor &value, const Maybe &bias, double p, const Tensor &seed)
        : scale(1 / std::sqrt(double(query.size(3)))), q(on_host(query).to(at::kFloat)), k(on_host(key).to(at::kFloat)),
          v(on_host(value).to(at::kFloat)) {
        Tensor scores = q.matmul(k.transpose(2, 3)) * scale;
        if (bias && bias->defined()) {
            TORCH_CHECK(bias->scalar_type() == query.scalar_type(), "invalid dtype for bias - should match query's dtype");
            TORCH_CHECK(bias->device() == query.device() && bias->sizes() == scores.sizes(), "bias: wrong shape or device");
            for (int i = 0; i < 3; ++i) {
                TORCH_CHECK(bias->stride(i) % (16 / bias->itemsize()) == 0, "attn_bias is not correctly aligned");
            }
            scores = scores + on_host(*bias).to(at::kFloat);
        }
        probabilities = scores.softmax(-1);
        auto random = at::detail::createCPUGenerator(seed.item<int64_t>());
        kept = p > 0 ? at::empty_like(probabilities).bernoulli_(1 - p, random) / (1 - p) : at::ones({}, at::kFloat);
    }
};

// What the kernel writes: [B, H, L, D], in memory [B, L, H, D].
Tensor in_kernels_order(const Tensor &x, const Tensor &like) {
    return on_device(x.transpose(1, 2).contiguous(), like.device(), like.scalar_type()).transpose(1, 2);
}

Four attend(const Tensor &q, const Tensor &k, const Tensor &v, const Maybe &bias, bool, double p, bool, std::optional<double>) {
    the<Log>().operation("attention");
    const at::AutoDispatchBelowAutograd below;
    const Tensor seed = p > 0 ? at::randint(INT64_MAX, {}, generator(q.device().index()), at::kLong) : at::zeros({}, at::kLong);
    const Weighed w(q, k, v, bias, p, seed);
    const Tensor out = in_kernels_order((w.probabilities * w.kept).matmul(w.v), q);
    return {out, at::empty({0}, q.options().dtype(at::kFloat)), seed, seed};
}

Four attend_backward(const Tensor &grad, const Tensor &q, const Tensor &k, const Tensor &v, const Tensor &bias, const Tensor &,
                     const Tensor &, const Tensor &seed, const Tensor &, double p, std::array<bool, 4>, bool, std::optional<double>) {
    if (!grad.defined()) return {};
    the<Log>().operation("attention, backward");
    if (!at::globalContext().deterministicAlgorithms()) the<Log>().operation("(attention, backward, in any order)");
    const at::AutoDispatchBelowAutograd below;
    const Weighed w(q, k, v, bias, p, seed);
    const Tensor g = on_host(grad).to(at::kFloat);
    const Tensor of_p = g.matmul(w.v.transpose(2, 3)) * w.kept;
    const Tensor of_scores = w.probabilities * (of_p - (of_p * w.probabilities).sum(-1, true)) * w.scale;
    return {in_kernels_order(of_scores.matmul(w.k), q), in_kernels_order(of_scores.transpose(2, 3).matmul(w.q), q),
            in_kernels_order((w.probabilities * w.kept).transpose(2, 3).matmul(g), q), Tensor()};
}

// ---- A host that touches what is not its own dies with a word

struct sigaction before;

void tell(const char *what) {
    (void)!write(STDERR_FILENO, what, std::strlen(what));
    _exit(139);
}

void on_fault(int signal, siginfo_t *about, void *context) {
    if (the<Memory>().of_device(about->si_addr)) tell("simulated device: the host touched memory of the device\n");
    if (the<Pinned>().has(about->si_addr)) tell("simulated device: the host touched pinned memory during a copy\n");
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(signal, about, context);
    } else {
        ::signal(signal, SIG_DFL);
    }
}

} // namespace

namespace at::native {
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
}

namespace at {
using ::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
} // namespace at

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
    m.impl("empty.memory_format", &empty);
    m.impl("empty_strided", &empty_strided);
    m.impl("resize_", &resize_in_place);
    m.impl("copy_", &copy);
    m.impl("_local_scalar_dense", &local_scalar);
    m.impl("as_strided", &at::native::as_strided_tensorimpl);
    m.impl("view", &at::native::view);
    m.impl("_reshape_alias", &at::native::_reshape_alias);
    m.impl("unfold", &at::native::unfold);
    m.impl("_scaled_dot_product_efficient_attention", &attend);
    m.impl("_scaled_dot_product_efficient_attention_backward", &attend_backward);
    // One kernel on a GPU, though libtorch has them in parts for devices that it does not know.
    for (const char *name : {"native_layer_norm", "native_layer_norm_backward", "native_group_norm", "embedding", "_foreach_copy_",
                             "_foreach_add_.List", "_fused_adamw_"}) {
        m.impl(name, torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
    }
}

static const bool set_up = [] {
    the<Log>();
    c10::SetAllocator(GPU, &the<DeviceAllocator>());
    struct sigaction action = {};
    action.sa_sigaction = &on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
    return std::atexit([] { the<Log>().write(); }) == 0;
}();

// For the CUDA runtime's question, in driver.cpp. What was ever held counts as held, as with torch's allocator.
extern "C" void simulated_memory(int index, size_t *free, size_t *total) {
    const Lock lock(the<Memory>().mutex);
    *total = the<Memory>().limit;
    *free = *total - the<Memory>().peak.at(index);
}
