// SPDX-License-Identifier: Apache-2.0
#include "agent/keys/key_pair.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/encoder.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <sys/random.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "agent/ops/shape.h"

namespace haneul::agent {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<&EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Deleter<&BIO_free_all>>;
using Number = std::unique_ptr<BIGNUM, Deleter<&BN_free>>;
using Context = std::unique_ptr<EVP_PKEY_CTX, Deleter<&EVP_PKEY_CTX_free>>;
using Encoder = std::unique_ptr<OSSL_ENCODER_CTX, Deleter<&OSSL_ENCODER_CTX_free>>;

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string digest(const EVP_MD* kind, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned size = 0;
  CHECK(::EVP_Digest(text.data(), text.size(), out.data(), &size, kind, nullptr) == 1);
  return std::string(reinterpret_cast<const char*>(out.data()), size);
}

std::string hex(std::string_view bytes, std::string_view separator) {
  std::string text;
  for (char byte : bytes) {
    if (!text.empty()) text += separator;
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return text;
}

// RFC 4251, section 5: strings and mpints of the SSH protocol.
void put_u32(std::string& out, size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xff);
}
void put_string(std::string& out, std::string_view text) {
  put_u32(out, text.size());
  out += text;
}
void put_mpint(std::string& out, const BIGNUM* number) {
  std::string bytes(static_cast<size_t>(BN_num_bytes(number)), '\0');
  ::BN_bn2bin(number, reinterpret_cast<unsigned char*>(bytes.data()));
  if (!bytes.empty() && (bytes[0] & 0x80) != 0) bytes.insert(bytes.begin(), '\0');
  put_string(out, bytes);
}

class WireReader {
 public:
  explicit WireReader(std::string_view data) : data_(data) {}
  std::optional<std::string_view> string() {
    if (data_.size() < 4) return std::nullopt;
    size_t length = 0;
    for (int i = 0; i < 4; ++i)
      length = length << 8 | static_cast<unsigned char>(data_[static_cast<size_t>(i)]);
    if (length > data_.size() - 4) return std::nullopt;
    std::string_view text = data_.substr(4, length);
    data_.remove_prefix(4 + length);
    return text;
  }
  bool at_end() const { return data_.empty(); }

 private:
  std::string_view data_;
};

std::string bio_text(const Bio& bio) {
  char* data = nullptr;
  long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

Result<std::string> encoded(const Key& key, int selection, const char* format, const char* structure) {
  Encoder encoder(::OSSL_ENCODER_CTX_new_for_pkey(key.get(), selection, format, structure, nullptr));
  Bio bio(::BIO_new(::BIO_s_mem()));
  if (!encoder || !bio || ::OSSL_ENCODER_to_bio(encoder.get(), bio.get()) != 1) {
    return make_error(ErrorCode::kInternal, "cannot write a key as {}", structure);
  }
  return bio_text(bio);
}

std::optional<std::string> raw_ed25519_public(const Key& key) {
  std::array<unsigned char, 32> raw{};
  size_t size = raw.size();
  if (::EVP_PKEY_get_raw_public_key(key.get(), raw.data(), &size) != 1 || size != raw.size())
    return std::nullopt;
  return std::string(reinterpret_cast<const char*>(raw.data()), size);
}

Number rsa_number(const Key& key, const char* name) {
  BIGNUM* number = nullptr;
  ::EVP_PKEY_get_bn_param(key.get(), name, &number);
  return Number(number);
}

// The public key as SSH sends it, RFC 4253 section 6.6 and RFC 8709 section 4.
Result<std::string> ssh_blob(const Key& key) {
  std::string blob;
  if (::EVP_PKEY_get_base_id(key.get()) == EVP_PKEY_RSA) {
    Number e = rsa_number(key, OSSL_PKEY_PARAM_RSA_E);
    Number n = rsa_number(key, OSSL_PKEY_PARAM_RSA_N);
    if (!e || !n) return Error(ErrorCode::kInternal, "an RSA key without its numbers");
    put_string(blob, "ssh-rsa");
    put_mpint(blob, e.get());
    put_mpint(blob, n.get());
    return blob;
  }
  auto raw = raw_ed25519_public(key);
  if (!raw) return Error(ErrorCode::kInternal, "an ED25519 key without its public part");
  put_string(blob, "ssh-ed25519");
  put_string(blob, *raw);
  return blob;
}

std::string ssh_line(std::string_view type, std::string_view blob, const std::string& name) {
  return fmt::format("{} {} {}", type == "rsa" ? "ssh-rsa" : "ssh-ed25519", to_base64(blob), name);
}

// OpenSSH's private key format, PROTOCOL.key of its source: unencrypted, one key.
Result<std::string> openssh_private_key(const Key& key, const std::string& blob, const std::string& name) {
  std::array<unsigned char, 32> seed{};
  size_t size = seed.size();
  auto raw = raw_ed25519_public(key);
  if (!raw || ::EVP_PKEY_get_raw_private_key(key.get(), seed.data(), &size) != 1) {
    return Error(ErrorCode::kInternal, "an ED25519 key without its private part");
  }
  uint32_t check = 0;
  CHECK(::getrandom(&check, sizeof check, 0) == sizeof check);
  std::string secret;
  put_u32(secret, check);
  put_u32(secret, check);
  put_string(secret, "ssh-ed25519");
  put_string(secret, *raw);
  put_string(secret, std::string(reinterpret_cast<const char*>(seed.data()), size) + *raw);
  put_string(secret, name);
  for (char pad = 1; secret.size() % 8 != 0; ++pad) secret += pad;

  std::string out("openssh-key-v1\0", 15);
  put_string(out, "none");
  put_string(out, "none");
  put_string(out, "");
  put_u32(out, 1);
  put_string(out, blob);
  put_string(out, secret);
  std::string base64 = to_base64(out);
  std::string text = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
  for (size_t at = 0; at < base64.size(); at += 70) text += base64.substr(at, 70) + "\n";
  return text + "-----END OPENSSH PRIVATE KEY-----\n";
}

// A line of authorized_keys, or the body of RFC 4716, or DER: the blob or the key inside.
std::optional<std::string> ssh_blob_in(const std::string& text) {
  if (text.starts_with("ssh-rsa ") || text.starts_with("ssh-ed25519 ")) {
    size_t begin = text.find(' ') + 1;
    return from_base64(text.substr(begin, text.find_first_of(" \r\n", begin) - begin));
  }
  if (!text.starts_with("---- BEGIN SSH2 PUBLIC KEY ----")) return std::nullopt;
  std::string body;
  bool in_header = false;
  size_t at = text.find('\n');
  while (at != std::string::npos) {
    size_t end = text.find('\n', at + 1);
    std::string line = text.substr(at + 1, end == std::string::npos ? end : end - at - 1);
    if (line.starts_with("---- END")) return from_base64(body);
    bool is_header = in_header || line.find(':') != std::string::npos;
    in_header = is_header && !line.empty() && line.find_last_not_of(" \r") != std::string::npos &&
                line[line.find_last_not_of(" \r")] == '\\';
    if (!is_header) body += line;
    at = end;
  }
  return std::nullopt;
}

Key rsa_from(std::string_view e, std::string_view n) {
  Number e_number(::BN_bin2bn(bytes_of(e), static_cast<int>(e.size()), nullptr));
  Number n_number(::BN_bin2bn(bytes_of(n), static_cast<int>(n.size()), nullptr));
  std::unique_ptr<OSSL_PARAM_BLD, Deleter<&OSSL_PARAM_BLD_free>> builder(::OSSL_PARAM_BLD_new());
  ::OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n_number.get());
  ::OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e_number.get());
  std::unique_ptr<OSSL_PARAM, Deleter<&OSSL_PARAM_free>> params(::OSSL_PARAM_BLD_to_param(builder.get()));
  Context context(::EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr));
  EVP_PKEY* key = nullptr;
  if (::EVP_PKEY_fromdata_init(context.get()) != 1 ||
      ::EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
    return nullptr;
  }
  return Key(key);
}

Key key_from_blob(std::string_view blob) {
  WireReader reader(blob);
  auto type = reader.string();
  auto first = reader.string();
  if (!type || !first) return nullptr;
  if (*type == "ssh-ed25519" && first->size() == 32 && reader.at_end()) {
    return Key(::EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes_of(*first), 32));
  }
  auto modulus = reader.string();
  if (*type != "ssh-rsa" || !modulus || !reader.at_end() || first->size() > 64 || modulus->size() > 2049)
    return nullptr;
  return rsa_from(*first, *modulus);
}

Key key_from_der(const std::string& text) {
  std::string body = text;
  if (body.starts_with("-----BEGIN PUBLIC KEY-----")) {
    Bio bio(::BIO_new_mem_buf(body.data(), static_cast<int>(body.size())));
    return Key(::PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
  }
  auto der = from_base64(body);
  if (!der || der->empty()) return nullptr;
  const unsigned char* at = bytes_of(*der);
  return Key(::d2i_PUBKEY(nullptr, &at, static_cast<long>(der->size())));
}

std::string trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

}  // namespace

std::string sha256_hex(std::string_view text) {
  return hex(digest(::EVP_sha256(), text), "");
}

Result<KeyPair> create_key_pair(std::string_view type, const std::string& name) {
  bool rsa = type == "rsa";
  Key key(rsa ? ::EVP_RSA_gen(2048) : ::EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key) return make_error(ErrorCode::kInternal, "cannot make a key of type {}", type);
  KeyPair pair{.type = std::string(type), .public_key = {}, .private_key = {}, .fingerprint = {}};
  std::string blob = TRY(ssh_blob(key));
  pair.public_key = ssh_line(type, blob, name);
  if (rsa) {
    pair.private_key = TRY(encoded(key, EVP_PKEY_KEYPAIR, "PEM", "type-specific"));
    std::string der = TRY(encoded(key, EVP_PKEY_KEYPAIR, "DER", "PrivateKeyInfo"));
    pair.fingerprint = hex(digest(::EVP_sha1(), der), ":");
  } else {
    pair.private_key = TRY(openssh_private_key(key, blob, name));
    pair.fingerprint = to_base64(digest(::EVP_sha256(), blob));
  }
  return pair;
}

Answer<KeyPair> import_key_pair(const std::string& material, const std::string& name) {
  std::string text = trimmed(material);
  auto blob_in_text = ssh_blob_in(text);
  Key key = blob_in_text ? key_from_blob(*blob_in_text) : key_from_der(text);
  int kind = key ? ::EVP_PKEY_get_base_id(key.get()) : 0;
  if (kind != EVP_PKEY_RSA && kind != EVP_PKEY_ED25519) {
    return ApiError(ApiCode::kInvalidKeyFormat, "Key is not in valid OpenSSH public key format");
  }
  int bits = ::EVP_PKEY_get_bits(key.get());
  if (kind == EVP_PKEY_RSA && (bits < 1024 || bits > 4096)) {
    return api_error(ApiCode::kInvalidKeyFormat, "An RSA key of {} bits is not supported: 1024 to 4096",
                     bits);
  }
  KeyPair pair{.type = kind == EVP_PKEY_RSA ? "rsa" : "ed25519",
               .public_key = {},
               .private_key = {},
               .fingerprint = {}};
  std::string blob = TRY(ssh_blob(key));
  pair.public_key = ssh_line(pair.type, blob, name);
  if (kind == EVP_PKEY_RSA) {
    std::string der = TRY(encoded(key, EVP_PKEY_PUBLIC_KEY, "DER", "SubjectPublicKeyInfo"));
    pair.fingerprint = hex(digest(::EVP_md5(), der), ":");
  } else {
    pair.fingerprint = to_base64(digest(::EVP_sha256(), blob));
  }
  return pair;
}

}  // namespace haneul::agent
