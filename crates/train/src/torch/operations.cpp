// What libtorch can do on a GPU and tch cannot ask for: operations on many tensors at once, AdamW as one, products in whole f32, and copies to
// memory from which a GPU writes on its own.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>

#include <map>

#include "caught.hpp"
#include "linear.hpp"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensors = std::vector<Tensor>;

namespace {

Tensors list(Tensor *const *tensors, size_t count) {
    Tensors all;
    all.reserve(count);
    for (size_t i = 0; i < count; ++i) {
        all.push_back(*tensors[i]);
    }
    return all;
}

// Adds tensors of another type. libtorch has that in one operation for tensors of one type alone, but copies of another type also for many
// at once: some megabytes at a time go by way of these.
void add_converted(const Tensors &sums, const Tensors &others) {
    constexpr int64_t AT_ONCE = 1 << 24;
    for (size_t first = 0, next; first < sums.size(); first = next) {
        int64_t elements = 0;
        for (next = first; next < sums.size() && (next == first || elements + sums[next].numel() <= AT_ONCE); ++next) {
            elements += sums[next].numel();
        }
        const Tensor buffer = at::empty({elements}, sums[first].options());
        Tensors converted;
        int64_t start = 0;
        for (size_t i = first; i < next; ++i) {
            converted.push_back(buffer.narrow(0, start, sums[i].numel()).view_as(sums[i]));
            start += sums[i].numel();
        }
        const auto part = [&](const Tensors &all) { return at::TensorList(all).slice(first, next - first); };
        at::_foreach_copy_(converted, part(others));
        at::_foreach_add_(part(sums), converted);
    }
}

// x y in f32, of whose factors no kernel cuts bits off; nor does the backward pass.
struct Product : torch::autograd::Function<Product> {
    static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &y) {
        context->save_for_backward({x, y});
        const at::NoTF32Guard whole;
        return x.mm(y);
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const at::NoTF32Guard whole;
        Tensor of_x, of_y;
        if (context->needs_input_grad(0)) {
            of_x = gradients[0].mm(saved[1].t());
        }
        if (context->needs_input_grad(1)) {
            of_y = saved[0].t().mm(gradients[0]);
        }
        return {of_x, of_y};
    }
};

// Rows of x. Its gradient is a sum of rows; libtorch adds them by atomic operations, in whatever order they come: this product has one order.
struct Rows : torch::autograd::Function<Rows> {
    static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &rows) {
        context->save_for_backward({rows});
        context->saved_data["size"] = x.sizes();
        return x.index_select(0, rows);
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        const at::NoTF32Guard whole;
        const Tensor rows = context->get_saved_variables()[0], &gradient = gradients[0];
        const auto size = context->saved_data["size"].toIntVector();
        const Tensor is_taken = at::arange(size[0], rows.options()).unsqueeze(1).eq(rows).to(gradient.scalar_type());
        return {is_taken.mm(gradient.reshape({gradient.size(0), -1})).view(size), Tensor()};
    }
};

// x W' + b, and x itself for one more use. libtorch adds the gradients of both in an operation of its own; here the product adds, in place:
// of that use's gradient nobody else reads anything then, for the way from y came back to it before.
struct LinearBeside : torch::autograd::Function<LinearBeside> {
    static variable_list forward(AutogradContext *context, const Tensor &x, const Tensor &weight, const Tensor &bias) {
        context->save_for_backward({x, weight});
        context->set_materialize_grads(false);
        return {at::linear(x, weight, bias), x};
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        if (!gradients[0].defined()) {
            return {gradients[1], Tensor(), Tensor()};
        }
        return gradients_of_linear(context, gradients[0], gradients[1]);
    }
};

// residual + scale kept x: dropout, of which is known what it keeps, and the sum that follows it, in one operation.
struct AddKept : torch::autograd::Function<AddKept> {
    static Tensor forward(AutogradContext *context, const Tensor &residual, const Tensor &x, const Tensor &kept, double scale) {
        context->save_for_backward({kept});
        context->saved_data["scale"] = scale;
        return at::addcmul(residual, x, kept, scale);
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        const Tensor kept = context->get_saved_variables()[0];
        return {gradients[0], at::native_dropout_backward(gradients[0], kept, context->saved_data["scale"].toDouble()), Tensor(), Tensor()};
    }
};

// The kernels of attention on a GPU add up gradients by atomic operations, unless deterministic ones are asked for. That is asked for around
// them alone: elsewhere nothing here depends on it, and cuBLAS would want a variable of the environment.
struct InOrder final : torch::autograd::FunctionPreHook {
    variable_list operator()(const variable_list &gradients) override {
        at::globalContext().setDeterministicAlgorithms(true, false);
        return gradients;
    }
};
struct InAnyOrder final : torch::autograd::FunctionPostHook {
    variable_list operator()(const variable_list &gradients, const variable_list &) override {
        at::globalContext().setDeterministicAlgorithms(false, false);
        return gradients;
    }
};

} // namespace

extern "C" {

// How a GPU computes. TF32 cuts 13 bits off the factors of products in f32. Attention of cuDNN, which libtorch 2.11 takes first on an H100,
// gives gradients that are not numbers at some sizes (pytorch#196678), and makes a plan for each new shape. Convolutions are the same every
// time.
bool simla_configure(bool tf32, char *message, size_t length) {
    return caught(message, length, [&] {
        at::globalContext().setSDPUseCuDNN(false);
        at::globalContext().setAllowTF32CuBLAS(tf32);
        at::globalContext().setAllowTF32CuDNN(tf32);
        at::globalContext().setDeterministicCuDNN(true);
        at::globalContext().setDeterministicFillUninitializedMemory(false);
    });
}

// Copies each of `from` to its place in `to`, of whatever types.
bool simla_copy(Tensor *const *to, Tensor *const *from, size_t count, char *message, size_t length) {
    return caught(message, length, [&] {
        const at::NoGradGuard no_gradient;
        at::_foreach_copy_(list(to, count), list(from, count));
    });
}

// Adds each of `others`, all of one type, to its sum; sums are of one type.
bool simla_add(Tensor *const *sums, Tensor *const *others, size_t count, char *message, size_t length) {
    return caught(message, length, [&] {
        const at::NoGradGuard no_gradient;
        const Tensors to = list(sums, count), from = list(others, count);
        if (to[0].scalar_type() == from[0].scalar_type()) {
            at::_foreach_add_(to, from);
        } else {
            add_converted(to, from);
        }
    });
}

// The `step`th step of AdamW; gradients are multiplied by `scale`.
bool simla_adamw(const Tensor *parameter, const Tensor *gradient, const Tensor *exp_avg, const Tensor *exp_avg_sq, int64_t step,
                 double scale, double lr, double beta1, double beta2, double weight_decay, double eps, char *message,
                 size_t length) {
    return caught(message, length, [&] {
        const at::NoGradGuard no_gradient;
        const auto number = [&](double value) { return at::full({}, value, gradient->options()); };
        // The operation divides.
        const auto divisor = scale == 1.0 ? std::optional<Tensor>() : number(1.0 / scale);
        at::_fused_adamw_({*parameter}, {*gradient}, {*exp_avg}, {*exp_avg_sq}, {}, {number(double(step))}, lr, beta1, beta2,
                          weight_decay, eps, false, false, divisor);
    });
}

// x y, of matrices in f32. A new tensor that the caller owns; null where that could not be.
Tensor *simla_product(const Tensor *x, const Tensor *y, char *message, size_t length) {
    Tensor *product = nullptr;
    caught(message, length, [&] { product = new Tensor(Product::apply(*x, *y)); });
    return product;
}

// Rows of x, some of them several times or never. A new tensor that the caller owns; null where that could not be.
Tensor *simla_select(const Tensor *x, const Tensor *rows, char *message, size_t length) {
    Tensor *selected = nullptr;
    caught(message, length, [&] { selected = new Tensor(Rows::apply(*x, *rows)); });
    return selected;
}

// x W' + b and x again, in `both`: new tensors that the caller owns.
bool simla_linear_beside(const Tensor *x, const Tensor *weight, const Tensor *bias, Tensor **both, char *message, size_t length) {
    return caught(message, length, [&] {
        const variable_list made = LinearBeside::apply(*x, *weight, *bias);
        for (size_t i = 0; i < made.size(); ++i) {
            both[i] = new Tensor(made[i]);
        }
    });
}

// residual + scale kept x. A new tensor that the caller owns; null where that could not be.
Tensor *simla_add_kept(const Tensor *residual, const Tensor *x, const Tensor *kept, double scale, char *message, size_t length) {
    Tensor *sum = nullptr;
    caught(message, length, [&] { sum = new Tensor(AddKept::apply(*residual, *x, *kept, scale)); });
    return sum;
}

// What attention gave: its backward pass adds in one order.
bool simla_keep_order(const Tensor *seen, char *message, size_t length) {
    return caught(message, length, [&] {
        const auto node = seen->grad_fn();
        // Plain products are no kernel of attention.
        if (node && node->name().find("ScaledDotProduct") != std::string::npos) {
            node->add_pre_hook(std::make_unique<InOrder>());
            node->add_post_hook(std::make_unique<InAnyOrder>());
        }
    });
}

// Copies on the host, new tensors that the caller owns. What several share of memory is copied once, and shared by the copies. From a GPU it
// comes into pinned memory: it is there when the GPU has done what it was told so far.
bool simla_on_host(Tensor *const *tensors, Tensor **copies, size_t count, char *message, size_t length) {
    Tensors copied;
    const bool done = caught(message, length, [&] {
        const at::NoGradGuard no_gradient;
        std::map<std::pair<const void *, at::ScalarType>, Tensor> buffers;
        for (const Tensor &x : list(tensors, count)) {
            Tensor &buffer = buffers[{x.storage().unsafeGetStorageImpl(), x.scalar_type()}];
            if (!buffer.defined()) {
                const int64_t elements = x.storage().nbytes() / x.itemsize();
                buffer = at::empty({elements}, x.options().device(c10::kCPU).pinned_memory(x.is_cuda()));
                buffer.copy_(x.as_strided({elements}, {1}, 0), x.is_cuda());
            }
            copied.push_back(buffer.as_strided(x.sizes(), x.strides(), x.storage_offset()));
        }
    });
    for (size_t i = 0; done && i < count; ++i) {
        copies[i] = new Tensor(copied[i]);
    }
    return done;
}

} // extern "C"
