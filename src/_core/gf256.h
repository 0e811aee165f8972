/* Arithmetic in GF(2^8) over x^8 + x^4 + x^3 + x^2 + 1 (0x11D): the field of RFC 8681 and of most erasure codes.

A buffer is multiplied by a constant nibble by nibble: the product of a byte is the sum of the products of its two halves,
and sixteen products fit in one vector register, where a byte shuffle looks up 16 or 32 of them at once. The variant is chosen
once, when the module is loaded, by what the processor has; all give the same bytes. */
#ifndef INTERPEER_GF256_H
#define INTERPEER_GF256_H

#include <stddef.h>
#include <stdint.h>

#define GF256_POLYNOMIAL 0x11D

enum { GF256_PORTABLE = 0, GF256_SSSE3 = 1, GF256_AVX2 = 2, GF256_NEON = 3, GF256_VARIANTS = 4 };

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
#define GF256_X86 1
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define GF256_ARM 1
#include <arm_neon.h>
#endif

#if defined(GF256_X86) && (defined(__GNUC__) || defined(__clang__))
#define GF256_FOR(set) __attribute__((target(set)))
#else
#define GF256_FOR(set)  /* this compiler takes any intrinsic as it is */
#endif

typedef void (*gf256_muladd_fn)(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n);

static uint8_t gf256_log[256], gf256_exp[510];  /* the logarithm of 0 is never asked for */
static uint8_t gf256_halves[256][32];           /* by factor: its products with 0..15, then with 0x00..0xF0 */
static gf256_muladd_fn gf256_muladd_chosen;
static int gf256_chosen = -1;

static inline uint8_t gf256_mul(uint8_t a, uint8_t b)
{
    return a && b ? gf256_exp[gf256_log[a] + gf256_log[b]] : 0;
}

static inline uint8_t gf256_inverse(uint8_t a) { return gf256_exp[255 - gf256_log[a]]; }  /* of anything but 0 */

static void gf256_muladd_portable(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n)
{
    const uint8_t *low = gf256_halves[factor], *high = low + 16;
    size_t i;
    for (i = 0; i < n; i++)
        sum[i] ^= low[source[i] & 15] ^ high[source[i] >> 4];
}

#if defined(GF256_X86)
GF256_FOR("ssse3") static void gf256_muladd_ssse3(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n)
{
    const __m128i low = _mm_loadu_si128((const __m128i *)gf256_halves[factor]);
    const __m128i high = _mm_loadu_si128((const __m128i *)(gf256_halves[factor] + 16));
    const __m128i half = _mm_set1_epi8(15);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(source + i));
        __m128i product = _mm_xor_si128(_mm_shuffle_epi8(low, _mm_and_si128(x, half)),
                                        _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi64(x, 4), half)));
        _mm_storeu_si128((__m128i *)(sum + i), _mm_xor_si128(_mm_loadu_si128((const __m128i *)(sum + i)), product));
    }
    gf256_muladd_portable(sum + i, source + i, factor, n - i);
}

GF256_FOR("avx2") static void gf256_muladd_avx2(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n)
{
    const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)gf256_halves[factor]));
    const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(gf256_halves[factor] + 16)));
    const __m256i half = _mm256_set1_epi8(15);
    size_t i;
    for (i = 0; i + 32 <= n; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(source + i));
        __m256i product = _mm256_xor_si256(_mm256_shuffle_epi8(low, _mm256_and_si256(x, half)),
                                           _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64(x, 4), half)));
        _mm256_storeu_si256((__m256i *)(sum + i), _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(sum + i)), product));
    }
    gf256_muladd_ssse3(sum + i, source + i, factor, n - i);
}
#endif

#if defined(GF256_ARM)
static void gf256_muladd_neon(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n)
{
    const uint8x16_t low = vld1q_u8(gf256_halves[factor]), high = vld1q_u8(gf256_halves[factor] + 16);
    const uint8x16_t half = vdupq_n_u8(15);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16) {
        uint8x16_t x = vld1q_u8(source + i);
        uint8x16_t product = veorq_u8(vqtbl1q_u8(low, vandq_u8(x, half)), vqtbl1q_u8(high, vshrq_n_u8(x, 4)));
        vst1q_u8(sum + i, veorq_u8(vld1q_u8(sum + i), product));
    }
    gf256_muladd_portable(sum + i, source + i, factor, n - i);
}
#endif

/* Return the function of a variant, or NULL where this processor or this build has none. */
static gf256_muladd_fn gf256_variant(int variant)
{
    if (variant == GF256_PORTABLE)
        return gf256_muladd_portable;
#if defined(GF256_X86) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    if (variant == GF256_AVX2 && __builtin_cpu_supports("avx2"))
        return gf256_muladd_avx2;
    if (variant == GF256_SSSE3 && __builtin_cpu_supports("ssse3"))
        return gf256_muladd_ssse3;
#elif defined(GF256_X86)
    if (variant == GF256_AVX2 || variant == GF256_SSSE3) {
        int basic[4], extended[4];
        __cpuidex(basic, 1, 0);
        __cpuidex(extended, 7, 0);
        if (variant == GF256_SSSE3 && basic[2] & 1 << 9)
            return gf256_muladd_ssse3;
        if (variant == GF256_AVX2 && basic[2] & 1 << 27 && (_xgetbv(0) & 6) == 6 && extended[1] & 1 << 5)
            return gf256_muladd_avx2;  /* the processor has it, and the system saves its registers */
    }
#elif defined(GF256_ARM)
    if (variant == GF256_NEON)
        return gf256_muladd_neon;
#endif
    return NULL;
}

/* Compute with this variant from now on. Return 0, or -1 and no change where there is none. */
static int gf256_choose(int variant)
{
    gf256_muladd_fn chosen = gf256_variant(variant);
    if (chosen == NULL)
        return -1;
    gf256_muladd_chosen = chosen;
    gf256_chosen = variant;
    return 0;
}

/* Make the tables and choose the fastest variant: once, when the module is loaded. */
static void gf256_init(void)
{
    unsigned power = 1, factor, i;
    int variant = GF256_VARIANTS;
    for (i = 0; i < 255; i++) {
        gf256_exp[i] = gf256_exp[i + 255] = (uint8_t)power;
        gf256_log[power] = (uint8_t)i;
        power = power << 1 ^ (power & 0x80 ? GF256_POLYNOMIAL : 0);
    }
    for (factor = 0; factor < 256; factor++)
        for (i = 0; i < 16; i++) {
            gf256_halves[factor][i] = gf256_mul((uint8_t)factor, (uint8_t)i);
            gf256_halves[factor][i + 16] = gf256_mul((uint8_t)factor, (uint8_t)(i << 4));
        }
    while (gf256_choose(--variant) != 0)
        ;
}

/* sum[i] += factor * source[i]; the buffers are the same or have nothing in common. */
static inline void gf256_muladd(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n)
{
    if (factor)
        gf256_muladd_chosen(sum, source, factor, n);
}

/* data[i] = factor * data[i]. Rare: once for each equation, on a buffer that is in the cache anyway. */
static inline void gf256_scale(uint8_t *data, uint8_t factor, size_t n)
{
    gf256_muladd(data, data, factor ^ 1, n);  /* x + (f - 1) x, and 1 is subtracted as it is added */
}

#endif
