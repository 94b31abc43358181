// SPDX-License-Identifier: Apache-2.0
#include "storage/async_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace haneul::storage {
namespace {

class RingFile final : public AsyncFile {
 public:
  explicit RingFile(UniqueFd fd) : fd_(std::move(fd)) {}

  void read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    ring.readv(op, fd_.get(), data, offset);
  }
  void write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    ring.writev(op, fd_.get(), data, offset);
  }
  void sync(IoRing& ring, IoOperation& op) override { ring.fdatasync(op, fd_.get()); }
  void erase(IoRing& ring, IoOperation& op, Erase how, uint64_t offset, uint64_t length) override {
    int mode = how == Erase::kPunch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    ring.fallocate(op, fd_.get(), mode | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  Status read_now(uint64_t offset, std::span<std::byte> out) override {
    return read_exact_at(fd_.get(), offset, out);
  }
  Status write_now(uint64_t offset, std::span<const std::byte> data) override {
    return write_all_at(fd_.get(), offset, data);
  }
  Status sync_now() override {
    if (::fdatasync(fd_.get()) != 0) return errno_error("fdatasync");
    return {};
  }
  Status erase_now(Erase how, uint64_t offset, uint64_t length) override {
    int mode = (how == Erase::kPunch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
    while (::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
      if (errno != EINTR) return errno_error("fallocate");
    }
    return {};
  }
  Result<uint64_t> size() override {
    struct stat info {};
    if (::fstat(fd_.get(), &info) != 0) return errno_error("fstat");
    if (S_ISREG(info.st_mode)) return static_cast<uint64_t>(info.st_size);
    uint64_t bytes = 0;
    if (!S_ISBLK(info.st_mode)) {
      return make_error(ErrorCode::kInvalidArgument, "a disk must be a regular file or a block device");
    }
    if (::ioctl(fd_.get(), BLKGETSIZE64, &bytes) != 0) return errno_error("BLKGETSIZE64");
    return bytes;
  }
  Status grow(uint64_t size_bytes) override {
    uint64_t now = TRY(size());
    if (now >= size_bytes) return {};
    if (::ftruncate(fd_.get(), static_cast<off_t>(size_bytes)) != 0) return errno_error("ftruncate");
    return {};
  }
  Status lock(Lock how) override {
    return how == Lock::kNone ? unlock_file(fd_.get()) : lock_file(fd_.get(), how == Lock::kExclusive);
  }
  Result<uint64_t> next_data(uint64_t offset, uint64_t limit) override {
    off_t found = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (found >= 0) return std::min(static_cast<uint64_t>(found), limit);
    if (errno == ENXIO) return limit;
    // A file system or device that does not know holes: everything is data.
    return offset;
  }

 private:
  UniqueFd fd_;
};

}  // namespace

std::unique_ptr<AsyncFile> make_async_file(UniqueFd fd) {
  return std::make_unique<RingFile>(std::move(fd));
}

Status lock_file(int fd, bool exclusive) {
  struct flock lock {};
  lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) {
    return Error(ErrorCode::kBusy,
                 exclusive
                     ? "the file is open as a disk elsewhere, and a writable disk has one user at a time"
                     : "the file is open as a writable disk elsewhere");
  }
  return errno_error("locking the disk's file");
}

Status unlock_file(int fd) {
  struct flock lock {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) != 0) return errno_error("unlocking the disk's file");
  return {};
}

Result<bool> is_writable(int fd) {
  int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return errno_error("fcntl(F_GETFL)");
  if ((flags & O_ACCMODE) == O_WRONLY) {
    return make_error(ErrorCode::kInvalidArgument, "a disk's file must be open for reading");
  }
  return (flags & O_ACCMODE) == O_RDWR;
}

}  // namespace haneul::storage
