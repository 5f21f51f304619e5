// x W' + b with oneDNN's order of the weight made first, and its gradients.
//
// torch has both operations under a name, for its compiler, but no function of its C++ library has them: they are looked up.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include "caught.hpp"
#include "linear.hpp"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

Tensor in_its_order(const Tensor &weight) {
    static const auto reorder =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("mkldnn::_reorder_linear_weight", "")
            .typed<Tensor(const Tensor &, std::optional<int64_t>)>();
    return reorder.call(weight, std::nullopt);
}

Tensor product(const Tensor &x, const Tensor &ordered, const Tensor &bias) {
    static const auto multiply =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
            .typed<Tensor(const Tensor &, const Tensor &, const std::optional<Tensor> &,
                          std::string_view, c10::List<std::optional<at::Scalar>>,
                          std::optional<std::string_view>)>();
    return multiply.call(x, ordered, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

struct Linear : torch::autograd::Function<Linear> {
    static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &weight,
                          const Tensor &bias) {
        context->save_for_backward({x, weight});
        return product(x, in_its_order(weight), bias);
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        return gradients_of_linear(context, gradients[0]);
    }
};

} // namespace

// A new tensor that the caller owns; null where that could not be, and why in `message`.
extern "C" Tensor *simla_linear(const Tensor *x, const Tensor *weight, const Tensor *bias,
                                char *message, size_t length) {
    Tensor *y = nullptr;
    caught(message, length, [&] { y = new Tensor(Linear::apply(*x, *weight, *bias)); });
    return y;
}
