// x W' + b with oneDNN's order of the weight made first, and its gradients.
//
// torch has both operations under a name, for its compiler, but no function of its C++ library has them: they are looked up.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include "caught.hpp"

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
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &weight = saved[1];
        const Tensor gradient = gradients[0].reshape({-1, weight.size(0)});
        Tensor of_x, of_weight, of_bias;
        if (context->needs_input_grad(0)) {
            of_x = gradient.mm(weight).view(x.sizes());
        }
        if (context->needs_input_grad(1)) {
            of_weight = gradient.t().mm(x.reshape({-1, weight.size(1)}));
        }
        if (context->needs_input_grad(2)) {
            of_bias = gradient.sum(0);
        }
        return {of_x, of_weight, of_bias};
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
