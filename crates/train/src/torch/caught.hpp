// No exception crosses the border to Rust.

#pragma once

#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>

// Whether `f` returned; where it threw, why is in `message`.
template <typename F> bool caught(char *message, size_t length, F &&f) {
    try {
        f();
        return true;
    } catch (const c10::Error &error) {
        // Without the addresses in libtorch.
        std::snprintf(message, length, "%s", error.what_without_backtrace());
    } catch (const std::exception &error) {
        std::snprintf(message, length, "%s", error.what());
    } catch (...) {
        std::snprintf(message, length, "an exception of an unknown kind");
    }
    return false;
}
