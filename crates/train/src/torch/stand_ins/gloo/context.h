// The names that torch's ProcessGroupGloo.hpp mentions: torch ships that header and gloo's code, but not gloo's headers. Nothing of gloo
// is created, copied or destroyed on this side, and no member is read: torch's header holds all of it behind shared pointers.
#pragma once

#include <chrono>

namespace gloo {
class Context {
  public:
    void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
