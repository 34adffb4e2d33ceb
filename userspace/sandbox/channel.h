#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"

namespace lockscope {

/// One message between the agent and its helper: bytes, and descriptors that go
/// with them.
struct Message {
  std::string body;
  std::vector<UniqueFd> fds;
};

/// Messages over a stream socket, each preceded by its length (32 bits). Nothing
/// the other side does harms this one: lengths are bounded, waiting too.
class Channel {
 public:
  /// Waits for POLLIN or POLLOUT on the socket; false to give up.
  using Wait = std::function<bool(int socket, short events)>;

  /// The most descriptors that go with one message.
  static constexpr size_t kMaxFds = 4;

  /// Without `wait`, calls block as long as it takes, and make no system calls
  /// but sendmsg(2) and recvmsg(2).
  explicit Channel(UniqueFd socket, Wait wait = nullptr)
      : socket_(std::move(socket)), wait_(std::move(wait)) {}

  /// False when the other side is gone or waiting was given up.
  bool send(std::string_view body, std::span<const int> fds = {});
  /// False, too, when the message is larger than `max_bytes`.
  bool receive(size_t max_bytes, Message& message);

 private:
  bool receive_bytes(char* to, size_t size, std::vector<UniqueFd>& fds);
  bool may_try_again(short events) const;

  UniqueFd socket_;
  Wait wait_;
};

}  // namespace lockscope
