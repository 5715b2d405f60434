/*
 * The cryptography under AddressSanitizer and UndefinedBehaviorSanitizer. Without arguments it prints the implementations of AES that this
 * processor has. Otherwise it answers each line of standard input with one line, all bytes in hexadecimal digits and - for none:
 *   sha256 BYTES | hmac KEY BYTES | hkdf KEY SALT INFO SIZE | encrypt IMPLEMENTATION KEY NONCE DATA BYTES | decrypt IMPLEMENTATION KEY NONCE DATA BYTES TAG
 * Every buffer is allocated to the byte, so that an access outside is seen; what encrypts does so beside and in place. "speed" prints bytes for each microsecond.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../native/src/base/aes_gcm.h"
#include "../../native/src/base/sha256.h"

int arch_aes_best(void);

struct bytes {
  unsigned char *at;
  size_t size;
};

static struct bytes next(void) {
  const char *word = strtok(NULL, " \n");
  if (word == NULL) exit(3);
  struct bytes ret = {malloc(strlen(word) / 2), strcmp(word, "-") == 0 ? 0 : strlen(word) / 2};
  for (size_t i = 0; i < ret.size; i++) {
    unsigned value;
    if (sscanf(word + 2 * i, "%2x", &value) != 1) exit(3);
    ret.at[i] = (unsigned char)value;
  }
  return ret;
}

static void print(const unsigned char *bytes, size_t size) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < size; i++) putchar(digits[bytes[i] >> 4]), putchar(digits[bytes[i] & 15]);
  if (size == 0) putchar('-');
}

static void gcm(int encrypt) {
  const int implementation = atoi(strtok(NULL, " \n"));
  struct bytes key = next(), nonce = next(), data = next(), from = next(), given = {NULL, 0};
  if (!encrypt) given = next();
  struct aes_gcm *state = malloc(sizeof *state);
  unsigned char *beside = malloc(from.size), *place = malloc(from.size), tag[16], again[16];
  int right = 1, right_again = 1;
  if (from.size > 0) memcpy(place, from.at, from.size);
  aes_gcm_begin_with(state, key.at, (enum aes_implementation)implementation);
  if (encrypt) {
    aes_gcm_encrypt(state, nonce.at, data.at, data.size, from.at, from.size, beside, tag);
    aes_gcm_encrypt(state, nonce.at, data.at, data.size, place, from.size, place, again);
  } else {
    memcpy(tag, given.at, 16);
    memcpy(again, given.at, 16);
    right = aes_gcm_decrypt(state, nonce.at, data.at, data.size, from.at, from.size, beside, tag);
    right_again = aes_gcm_decrypt(state, nonce.at, data.at, data.size, place, from.size, place, again);
  }
  if (right != right_again || memcmp(tag, again, 16) != 0 || (from.size > 0 && memcmp(beside, place, from.size) != 0)) {
    printf("another result in place\n");
    exit(1);
  }
  print(beside, from.size);
  if (encrypt) {
    putchar(' ');
    print(tag, 16);
  } else {
    printf(right ? " right" : " wrong");
  }
  free(key.at), free(nonce.at), free(data.at), free(from.at), free(given.at), free(state), free(beside), free(place);
}

static void speed(void) {
  static unsigned char buffer[1 << 18];
  static const unsigned char key[32], nonce[12];
  unsigned char tag[16];
  struct aes_gcm state;
  for (int implementation = 0; implementation <= arch_aes_best(); implementation++) {
    const int rounds = implementation == AES_PORTABLE ? 8 : 4000;
    aes_gcm_begin_with(&state, key, (enum aes_implementation)implementation);
    for (int encrypt = 1; encrypt >= 0; encrypt--) {
      struct timespec begin, end;
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
      for (int i = 0; i < rounds; i++) {
        if (encrypt) aes_gcm_encrypt(&state, nonce, NULL, 0, buffer, sizeof buffer, buffer, tag);
        else aes_gcm_decrypt(&state, nonce, NULL, 0, buffer, sizeof buffer, buffer, tag);
      }
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
      const double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
      printf("%d %s %.0f\n", implementation, encrypt ? "encrypt" : "decrypt", rounds * (double)sizeof buffer / seconds / 1e6);
    }
  }
}

int main(int argc, char **argv) {
  (void)argv;
  if (argc == 1) {
    for (int i = 0; i <= arch_aes_best(); i++) printf("%d\n", i);
    return 0;
  }
  static char line[1 << 20];
  while (fgets(line, sizeof line, stdin) != NULL) {
    const char *what = strtok(line, " \n");
    unsigned char digest[SHA256_SIZE];
    if (what == NULL) return 3;
    if (strcmp(what, "sha256") == 0) {
      struct bytes bytes = next();
      struct sha256 hash;
      sha256_begin(&hash);
      /* In two parts: what is left over of the first is kept. */
      sha256_update(&hash, bytes.at, bytes.size / 3);
      sha256_update(&hash, bytes.at + bytes.size / 3, bytes.size - bytes.size / 3);
      sha256_end(&hash, digest);
      print(digest, sizeof digest);
      free(bytes.at);
    } else if (strcmp(what, "hmac") == 0) {
      struct bytes key = next(), bytes = next();
      hmac_sha256(key.at, key.size, bytes.at, bytes.size, digest);
      print(digest, sizeof digest);
      free(key.at), free(bytes.at);
    } else if (strcmp(what, "hkdf") == 0) {
      struct bytes key = next(), salt = next(), info = next();
      const size_t size = (size_t)atoi(strtok(NULL, " \n"));
      unsigned char *output = malloc(size);
      hkdf_sha256(key.at, key.size, salt.at, salt.size, info.at, info.size, output, size);
      print(output, size);
      free(key.at), free(salt.at), free(info.at), free(output);
    } else if (strcmp(what, "speed") == 0) {
      speed();
    } else {
      gcm(strcmp(what, "encrypt") == 0);
    }
    putchar('\n');
  }
  return 0;
}
