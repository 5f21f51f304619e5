// The gradients of x W' + b.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

// Those that are needed of x, W and b, from that of the layer's output; x and W were saved. To that of x is added, in place, what `beside`
// has of another use of x, if it has something.
inline torch::autograd::variable_list gradients_of_linear(torch::autograd::AutogradContext *context, const at::Tensor &of_output,
                                                          const at::Tensor &beside = {}) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor gradient = of_output.reshape({-1, weight.size(0)});
    at::Tensor of_x, of_weight, of_bias;
    if (context->needs_input_grad(0) && beside.defined()) {
        at::Tensor sum = beside.reshape({-1, weight.size(1)}).contiguous();
        of_x = at::addmm_out(sum, sum, gradient, weight).view(x.sizes());
    } else if (context->needs_input_grad(0)) {
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
