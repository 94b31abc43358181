// SPDX-License-Identifier: Apache-2.0
// Key pairs: made here or imported. The private key is given to the caller once and kept nowhere.
//
// Formats of a private key: RSA as PKCS#1 PEM, ED25519 in OpenSSH's format, as EC2 gives them. Fingerprints
// as EC2 shows them: a created RSA key by SHA-1 of the DER private key (PKCS#8), an imported one by MD5 of
// the DER public key, ED25519 by OpenSSH's SHA-256 in base64.
#pragma once

#include <string>
#include <string_view>

#include "agent/ops/answer.h"

namespace haneul::agent {

struct KeyPair {
  std::string type;         ///< "rsa" or "ed25519"
  std::string public_key;   ///< one line as in authorized_keys, NAME as its comment
  std::string private_key;  ///< empty if imported
  std::string fingerprint;
};

/// type is "rsa" (2048 bits) or "ed25519".
Result<KeyPair> create_key_pair(std::string_view type, const std::string& name);

/// From a public key: one line of authorized_keys, RFC 4716, or a PEM or base64 DER SubjectPublicKeyInfo.
/// InvalidKey.Format for anything else, and for RSA keys under 1024 or over 4096 bits.
Answer<KeyPair> import_key_pair(const std::string& material, const std::string& name);

/// Lower-case hexadecimal SHA-256.
std::string sha256_hex(std::string_view text);

}  // namespace haneul::agent
