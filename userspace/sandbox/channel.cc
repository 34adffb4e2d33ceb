#include "sandbox/channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <limits>

namespace lockscope {
namespace {

constexpr size_t kControlBytes = CMSG_SPACE(Channel::kMaxFds * sizeof(int));

void take_fds(msghdr& header, std::vector<UniqueFd>& fds) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
}

}  // namespace

bool Channel::may_try_again(short events) const {
  if (errno == EINTR) return true;
  return errno == EAGAIN && wait_ && wait_(socket_.get(), events);
}

bool Channel::send(std::string_view body, std::span<const int> fds) {
  if (fds.size() > kMaxFds || body.size() > std::numeric_limits<uint32_t>::max()) return false;
  uint32_t length = static_cast<uint32_t>(body.size());
  iovec parts[2] = {{&length, sizeof length}, {const_cast<char*>(body.data()), body.size()}};
  alignas(cmsghdr) char control[kControlBytes] = {};
  msghdr header{};
  header.msg_iov = parts;
  header.msg_iovlen = 2;
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  while (parts[0].iov_len + parts[1].iov_len > 0) {
    const ssize_t n = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | (wait_ ? MSG_DONTWAIT : 0));
    if (n < 0) {
      if (!may_try_again(POLLOUT)) return false;
      continue;
    }
    // Descriptors are with the first byte.
    header.msg_control = nullptr;
    header.msg_controllen = 0;
    size_t done = static_cast<size_t>(n);
    for (iovec& part : parts) {
      const size_t step = std::min(done, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + step;
      part.iov_len -= step;
      done -= step;
    }
  }
  return true;
}

bool Channel::receive(size_t max_bytes, Message& message) {
  message = {};
  uint32_t length = 0;
  if (!receive_bytes(reinterpret_cast<char*>(&length), sizeof length, message.fds)) return false;
  if (length > max_bytes) return false;
  message.body.resize(length);
  return receive_bytes(message.body.data(), length, message.fds);
}

bool Channel::receive_bytes(char* to, size_t size, std::vector<UniqueFd>& fds) {
  while (size > 0) {
    alignas(cmsghdr) char control[kControlBytes];
    iovec part{to, size};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t n =
        ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC | (wait_ ? MSG_DONTWAIT : 0));
    if (n < 0) {
      if (!may_try_again(POLLIN)) return false;
      continue;
    }
    take_fds(header, fds);
    if (n == 0 || (header.msg_flags & MSG_CTRUNC) || fds.size() > kMaxFds) return false;
    to += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

}  // namespace lockscope
