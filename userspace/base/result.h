#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace lockscope {

/// What went wrong, in one line fit for the user, and how the process should
/// end because of it. The values are the exit codes of the command line.
struct Error {
  enum class Kind : int {
    Failed = 1,        ///< something asked for could not be done
    Usage = 2,         ///< the command line makes no sense
    Unsupported = 77,  ///< the kernel or the privileges can't do it
  };

  Kind kind = Kind::Failed;
  std::string message;
};

inline Error failed(std::string message) { return {Error::Kind::Failed, std::move(message)}; }
inline Error usage_error(std::string message) { return {Error::Kind::Usage, std::move(message)}; }
inline Error unsupported(std::string message) {
  return {Error::Kind::Unsupported, std::move(message)};
}

/// A value or the reason there is none. For everything that can go wrong
/// outside the program; exceptions do not cross a module.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

/// Success, or the reason there was none.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}

  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace lockscope
