-- The ciphers of docs/spec, chapter 3, in plain Lua, for the dissector beside this file: Wireshark's Lua has none of them,
-- and the AEGIS family is in no library that it comes with. To read captures with; nothing here is constant in time, and
-- nothing of it is part of the library. Runs under Lua 5.2 to 5.4. Tags are verified.
--
-- Bytes are strings. Words have 32 bits; a number of 64 bits is two of them, the high one first.

local M = {}
local floor, char, byte, sub, rep = math.floor, string.char, string.byte, string.sub, string.rep
local TWO32 = 4294967296

local band, bor, bxor, lshift, rshift, lrotate
if bit32 then
    band, bor, bxor = bit32.band, bit32.bor, bit32.bxor
    lshift, rshift, lrotate = bit32.lshift, bit32.rshift, bit32.lrotate
else -- Lua 5.3 and later have operators, which Lua 5.2 could not even read
    band = load("return function(a, b) return a & b & 0xffffffff end")()
    bor = load("return function(a, b) return (a | b) & 0xffffffff end")()
    bxor = load("return function(a, b) return (a ~ b) & 0xffffffff end")()
    lshift = load("return function(a, n) return (a << n) & 0xffffffff end")()
    rshift = load("return function(a, n) return (a & 0xffffffff) >> n end")()
    lrotate = load("return function(a, n) a = a & 0xffffffff; return (a << n | a >> (32 - n)) & 0xffffffff end")()
end

local function integer(x) -- Lua 5.4 tells 3.0 from 3 where bits are meant
    return floor(x)
end

local function be32(s, i)
    local a, b, c, d = byte(s, i, i + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function le32(s, i)
    local a, b, c, d = byte(s, i, i + 3)
    return ((d * 256 + c) * 256 + b) * 256 + a
end

local function to_be32(w)
    return char(rshift(w, 24), band(rshift(w, 16), 255), band(rshift(w, 8), 255), band(w, 255))
end

local function to_le32(w)
    return char(band(w, 255), band(rshift(w, 8), 255), band(rshift(w, 16), 255), rshift(w, 24))
end

local function xor_bytes(a, b)
    local out = {}
    for i = 1, #a do out[i] = char(bxor(byte(a, i), byte(b, i))) end
    return table.concat(out)
end
M.xor_bytes = xor_bytes

-- --- 64 bits: BLAKE2b and SipHash ---

local function add64(ah, al, bh, bl)
    local low = al + bl
    local carry = 0
    if low >= TWO32 then low = low - TWO32; carry = 1 end
    return (ah + bh + carry) % TWO32, low
end

local function rotate64(h, l, n) -- to the left, by 1 to 63 bits
    if n >= 32 then h, l, n = l, h, n - 32 end
    if n == 0 then return h, l end
    return bor(lshift(h, n), rshift(l, 32 - n)), bor(lshift(l, n), rshift(h, 32 - n))
end

local IV = {
    0x6a09e667, 0xf3bcc908, 0xbb67ae85, 0x84caa73b, 0x3c6ef372, 0xfe94f82b, 0xa54ff53a, 0x5f1d36f1,
    0x510e527f, 0xade682d1, 0x9b05688c, 0x2b3e6c1f, 0x1f83d9ab, 0xfb41bd6b, 0x5be0cd19, 0x137e2179,
}
local SIGMA = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }, { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
    { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 }, { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
    { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 }, { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
    { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 }, { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
    { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 }, { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
}
local COLUMNS = { { 0, 4, 8, 12 }, { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 },
                  { 0, 5, 10, 15 }, { 1, 6, 11, 12 }, { 2, 7, 8, 13 }, { 3, 4, 9, 14 } }

local function blake2b_block(h, block, total, is_last)
    local vh, vl, mh, ml = {}, {}, {}, {}
    for i = 0, 7 do
        vh[i], vl[i] = h[2 * i + 1], h[2 * i + 2]
        vh[i + 8], vl[i + 8] = IV[2 * i + 1], IV[2 * i + 2]
    end
    for i = 0, 15 do ml[i], mh[i] = le32(block, 8 * i + 1), le32(block, 8 * i + 5) end
    vl[12] = bxor(vl[12], total)
    if is_last then vh[14], vl[14] = bxor(vh[14], 0xffffffff), bxor(vl[14], 0xffffffff) end
    for round = 0, 11 do
        local s = SIGMA[round % 10 + 1]
        for i = 1, 8 do
            local q = COLUMNS[i]
            local a, b, c, d = q[1], q[2], q[3], q[4]
            local x, y = s[2 * i - 1], s[2 * i]
            vh[a], vl[a] = add64(vh[a], vl[a], vh[b], vl[b])
            vh[a], vl[a] = add64(vh[a], vl[a], mh[x], ml[x])
            vh[d], vl[d] = rotate64(bxor(vh[d], vh[a]), bxor(vl[d], vl[a]), 32)
            vh[c], vl[c] = add64(vh[c], vl[c], vh[d], vl[d])
            vh[b], vl[b] = rotate64(bxor(vh[b], vh[c]), bxor(vl[b], vl[c]), 40)
            vh[a], vl[a] = add64(vh[a], vl[a], vh[b], vl[b])
            vh[a], vl[a] = add64(vh[a], vl[a], mh[y], ml[y])
            vh[d], vl[d] = rotate64(bxor(vh[d], vh[a]), bxor(vl[d], vl[a]), 48)
            vh[c], vl[c] = add64(vh[c], vl[c], vh[d], vl[d])
            vh[b], vl[b] = rotate64(bxor(vh[b], vh[c]), bxor(vl[b], vl[c]), 1)
        end
    end
    for i = 0, 7 do
        h[2 * i + 1] = bxor(bxor(h[2 * i + 1], vh[i]), vh[i + 8])
        h[2 * i + 2] = bxor(bxor(h[2 * i + 2], vl[i]), vl[i + 8])
    end
end

-- BLAKE2b of up to 128 bytes under a key, `n` bytes of it.
function M.blake2b(n, key, data)
    local h = {}
    for i = 1, 16 do h[i] = IV[i] end
    h[2] = bxor(h[2], 0x01010000 + #key * 256 + n)
    blake2b_block(h, key .. rep("\0", 128 - #key), 128, false)
    blake2b_block(h, data .. rep("\0", 128 - #data), 128 + #data, true)
    local out = {}
    for i = 0, 7 do out[#out + 1] = to_le32(h[2 * i + 2]) .. to_le32(h[2 * i + 1]) end
    return sub(table.concat(out), 1, n)
end

-- SipHash-2-4 of 16 bytes, as 8 bytes.
function M.siphash(key, data)
    local k0h, k0l, k1h, k1l = le32(key, 5), le32(key, 1), le32(key, 13), le32(key, 9)
    local v = {
        bxor(k0h, 0x736f6d65), bxor(k0l, 0x70736575), bxor(k1h, 0x646f7261), bxor(k1l, 0x6e646f6d),
        bxor(k0h, 0x6c796765), bxor(k0l, 0x6e657261), bxor(k1h, 0x74656462), bxor(k1l, 0x79746573),
    }
    local function rounds(n)
        for _ = 1, n do
            v[1], v[2] = add64(v[1], v[2], v[3], v[4])
            v[3], v[4] = rotate64(v[3], v[4], 13)
            v[3], v[4] = bxor(v[3], v[1]), bxor(v[4], v[2])
            v[1], v[2] = v[2], v[1]
            v[5], v[6] = add64(v[5], v[6], v[7], v[8])
            v[7], v[8] = rotate64(v[7], v[8], 16)
            v[7], v[8] = bxor(v[7], v[5]), bxor(v[8], v[6])
            v[1], v[2] = add64(v[1], v[2], v[7], v[8])
            v[7], v[8] = rotate64(v[7], v[8], 21)
            v[7], v[8] = bxor(v[7], v[1]), bxor(v[8], v[2])
            v[5], v[6] = add64(v[5], v[6], v[3], v[4])
            v[3], v[4] = rotate64(v[3], v[4], 17)
            v[3], v[4] = bxor(v[3], v[5]), bxor(v[4], v[6])
            v[5], v[6] = v[6], v[5]
        end
    end
    local words = { le32(data, 5), le32(data, 1), le32(data, 13), le32(data, 9), 16 * 16777216, 0 }
    for i = 1, 5, 2 do
        v[7], v[8] = bxor(v[7], words[i]), bxor(v[8], words[i + 1])
        rounds(2)
        v[1], v[2] = bxor(v[1], words[i]), bxor(v[2], words[i + 1])
    end
    v[6] = bxor(v[6], 0xff)
    rounds(4)
    return to_le32(bxor(bxor(v[2], v[4]), bxor(v[6], v[8]))) .. to_le32(bxor(bxor(v[1], v[3]), bxor(v[5], v[7])))
end

-- --- AES ---

local SBOX, T0, T1, T2, T3 = {}, {}, {}, {}, {}
do
    local function double(x) x = x * 2; if x > 255 then x = bxor(x, 0x11b) end; return x end
    local power, logarithm, x = {}, {}, 1
    for i = 0, 255 do power[i] = x; logarithm[x] = i; x = bxor(x, double(x)) end
    for i = 0, 255 do
        local inverse = i > 0 and power[(255 - logarithm[i]) % 255] or 0
        local s, turned = inverse, inverse
        for _ = 1, 4 do turned = bor(band(turned * 2, 255), rshift(turned, 7)); s = bxor(s, turned) end
        SBOX[i] = bxor(s, 0x63)
    end
    for i = 0, 255 do
        local s = SBOX[i]
        local d = double(s)
        T0[i] = ((d * 256 + s) * 256 + s) * 256 + bxor(d, s)
        T1[i] = lrotate(T0[i], 24)
        T2[i] = lrotate(T0[i], 16)
        T3[i] = lrotate(T0[i], 8)
    end
end

-- One round of AES: a block of four words, and the words that are added at its end.
local function aes_round(a, b, c, d, k1, k2, k3, k4)
    return bxor(bxor(bxor(T0[rshift(a, 24)], T1[band(rshift(b, 16), 255)]), bxor(T2[band(rshift(c, 8), 255)], T3[band(d, 255)])), k1),
        bxor(bxor(bxor(T0[rshift(b, 24)], T1[band(rshift(c, 16), 255)]), bxor(T2[band(rshift(d, 8), 255)], T3[band(a, 255)])), k2),
        bxor(bxor(bxor(T0[rshift(c, 24)], T1[band(rshift(d, 16), 255)]), bxor(T2[band(rshift(a, 8), 255)], T3[band(b, 255)])), k3),
        bxor(bxor(bxor(T0[rshift(d, 24)], T1[band(rshift(a, 16), 255)]), bxor(T2[band(rshift(b, 8), 255)], T3[band(c, 255)])), k4)
end

local function sub_word(w)
    return ((SBOX[rshift(w, 24)] * 256 + SBOX[band(rshift(w, 16), 255)]) * 256 + SBOX[band(rshift(w, 8), 255)]) * 256
        + SBOX[band(w, 255)]
end

local function aes256_schedule(key)
    local w, rcon = {}, 1
    for i = 0, 7 do w[i] = be32(key, 4 * i + 1) end
    for i = 8, 59 do
        local t = w[i - 1]
        if i % 8 == 0 then
            t = bxor(sub_word(lrotate(t, 8)), rcon * 16777216)
            rcon = rcon * 2
        elseif i % 8 == 4 then
            t = sub_word(t)
        end
        w[i] = bxor(w[i - 8], t)
    end
    return w
end

local function last_word(a, b, c, d, k)
    return bxor(((SBOX[rshift(a, 24)] * 256 + SBOX[band(rshift(b, 16), 255)]) * 256 + SBOX[band(rshift(c, 8), 255)]) * 256
        + SBOX[band(d, 255)], k)
end

local function aes256_block(w, a, b, c, d)
    a, b, c, d = bxor(a, w[0]), bxor(b, w[1]), bxor(c, w[2]), bxor(d, w[3])
    for i = 4, 52, 4 do a, b, c, d = aes_round(a, b, c, d, w[i], w[i + 1], w[i + 2], w[i + 3]) end
    return last_word(a, b, c, d, w[56]), last_word(b, c, d, a, w[57]), last_word(c, d, a, b, w[58]), last_word(d, a, b, c, w[59])
end

-- --- AES-256-GCM (NIST SP 800-38D) ---

local REDUCE = {} -- what four bits that fall out on the right put in on the left
for i = 0, 15 do
    local r = 0
    for bit = 0, 3 do if band(i, lshift(1, bit)) ~= 0 then r = bxor(r, lshift(0xe1, 24 - 3 + bit)) end end
    REDUCE[i] = r
end

local function ghash_table(a, b, c, d) -- H times each of the sixteen nibbles
    local m = { [0] = { 0, 0, 0, 0 }, [8] = { a, b, c, d } }
    for _, i in ipairs({ 4, 2, 1 }) do
        local low = band(d, 1)
        a, b, c, d = rshift(a, 1), bor(lshift(a, 31), rshift(b, 1)), bor(lshift(b, 31), rshift(c, 1)), bor(lshift(c, 31), rshift(d, 1))
        if low == 1 then a = bxor(a, 0xe1000000) end
        m[i] = { a, b, c, d }
    end
    for i = 2, 8, 1 do
        if m[i] and (i == 2 or i == 4 or i == 8) then
            for j = 1, i - 1 do
                local x, y = m[i], m[j]
                m[i + j] = { bxor(x[1], y[1]), bxor(x[2], y[2]), bxor(x[3], y[3]), bxor(x[4], y[4]) }
            end
        end
    end
    return m
end

local function ghash(m, data) -- `data` is whole blocks
    local a, b, c, d = 0, 0, 0, 0
    for at = 1, #data, 16 do
        local words = { bxor(a, be32(data, at)), bxor(b, be32(data, at + 4)), bxor(c, be32(data, at + 8)), bxor(d, be32(data, at + 12)) }
        a, b, c, d = 0, 0, 0, 0
        for i = 4, 1, -1 do
            local w = words[i]
            for shift = 0, 28, 4 do
                local r, e = REDUCE[band(d, 15)], m[band(rshift(w, shift), 15)]
                d = bxor(bor(lshift(c, 28), rshift(d, 4)), e[4])
                c = bxor(bor(lshift(b, 28), rshift(c, 4)), e[3])
                b = bxor(bor(lshift(a, 28), rshift(b, 4)), e[2])
                a = bxor(bxor(rshift(a, 4), r), e[1])
            end
        end
    end
    return a, b, c, d
end

local function padded(s, n)
    return s .. rep("\0", -#s % n)
end

local function xor_word(out, text, at, w)
    out[#out + 1] = to_be32(bxor(be32(text, at), w))
end

local function gcm_open(key, nonce, ad, sealed)
    local w = aes256_schedule(key)
    local n0, n1, n2 = be32(nonce, 1), be32(nonce, 5), be32(nonce, 9)
    local text, tag = sub(sealed, 1, -17), sub(sealed, -16)
    local blocks, out = padded(text, 16), {}
    local lengths = rep("\0", 4) .. to_be32(#ad * 8) .. rep("\0", 4) .. to_be32(#text * 8)
    local a, b, c, d = ghash(ghash_table(aes256_block(w, 0, 0, 0, 0)), padded(ad, 16) .. blocks .. lengths)
    local e, f, g, h = aes256_block(w, n0, n1, n2, 1)
    if to_be32(bxor(a, e)) .. to_be32(bxor(b, f)) .. to_be32(bxor(c, g)) .. to_be32(bxor(d, h)) ~= tag then return nil end
    for at = 1, #blocks, 16 do
        e, f, g, h = aes256_block(w, n0, n1, n2, integer((at - 1) / 16) + 2)
        xor_word(out, blocks, at, e)
        xor_word(out, blocks, at + 4, f)
        xor_word(out, blocks, at + 8, g)
        xor_word(out, blocks, at + 12, h)
    end
    return sub(table.concat(out), 1, #text)
end

-- --- ChaCha20-Poly1305 (RFC 8439) ---

local function chacha_block(key, counter, nonce)
    local s = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 }
    for i = 0, 7 do s[5 + i] = le32(key, 4 * i + 1) end
    s[13] = counter
    for i = 0, 2 do s[14 + i] = le32(nonce, 4 * i + 1) end
    local x = {}
    for i = 1, 16 do x[i] = s[i] end
    local function quarter(a, b, c, d)
        local p, q, r, t = x[a], x[b], x[c], x[d]
        p = (p + q) % TWO32; t = lrotate(bxor(t, p), 16)
        r = (r + t) % TWO32; q = lrotate(bxor(q, r), 12)
        p = (p + q) % TWO32; t = lrotate(bxor(t, p), 8)
        r = (r + t) % TWO32; q = lrotate(bxor(q, r), 7)
        x[a], x[b], x[c], x[d] = p, q, r, t
    end
    for _ = 1, 10 do
        quarter(1, 5, 9, 13); quarter(2, 6, 10, 14); quarter(3, 7, 11, 15); quarter(4, 8, 12, 16)
        quarter(1, 6, 11, 16); quarter(2, 7, 12, 13); quarter(3, 8, 9, 14); quarter(4, 5, 10, 15)
    end
    local out = {}
    for i = 1, 16 do out[i] = to_le32((x[i] + s[i]) % TWO32) end
    return table.concat(out)
end

local TWO22 = 4194304

-- 128 bits, and one more above them, as six limbs of 22 bits: their products and sums stay below 2^53.
local function limbs(w0, w1, w2, w3, top)
    return { band(w0, 0x3fffff), rshift(w0, 22) + band(w1, 0xfff) * 1024, rshift(w1, 12) + band(w2, 3) * 1048576,
             band(rshift(w2, 2), 0x3fffff), rshift(w2, 24) + band(w3, 0x3fff) * 256, rshift(w3, 14) + top * 262144 }
end

local function poly1305(key, data) -- `data` is whole blocks
    local r = limbs(band(le32(key, 1), 0x0fffffff), band(le32(key, 5), 0x0ffffffc), band(le32(key, 9), 0x0ffffffc),
                    band(le32(key, 13), 0x0ffffffc), 0)
    local h = { 0, 0, 0, 0, 0, 0 }
    for at = 1, #data, 16 do
        local m = limbs(le32(data, at), le32(data, at + 4), le32(data, at + 8), le32(data, at + 12), 1)
        for i = 1, 6 do h[i] = h[i] + m[i] end
        local product = { 0, 0, 0, 0, 0, 0 }
        for i = 1, 6 do
            for j = 1, 6 do
                if i + j <= 7 then
                    product[i + j - 1] = product[i + j - 1] + h[i] * r[j]
                else -- 2^132 is 20, modulo 2^130 - 5
                    product[i + j - 7] = product[i + j - 7] + 20 * h[i] * r[j]
                end
            end
        end
        local carry = 0
        for _ = 1, 2 do
            for i = 1, 6 do
                local x = product[i] + carry
                carry = floor(x / TWO22)
                product[i] = integer(x - carry * TWO22)
            end
            carry = carry * 20
        end
        product[1] = integer(product[1] + carry)
        h = product
    end
    local carry = 0
    for _ = 1, 2 do -- the last limb has 20 bits below 2^130
        for i = 1, 6 do
            local x, size = h[i] + carry, i == 6 and 1048576 or TWO22
            carry = floor(x / size)
            h[i] = integer(x - carry * size)
        end
        carry = carry * 5
    end
    h[1] = h[1] + carry
    local g, above = {}, 5
    for i = 1, 6 do
        local x, size = h[i] + above, i == 6 and 1048576 or TWO22
        above = floor(x / size)
        g[i] = integer(x - above * size)
    end
    if above > 0 then h = g end
    local words = {
        h[1] + band(h[2], 0x3ff) * TWO22, rshift(h[2], 10) + band(h[3], 0xfffff) * 4096,
        rshift(h[3], 20) + h[4] * 4 + band(h[5], 0xff) * 16777216, rshift(h[5], 8) + band(h[6], 0x3ffff) * 16384,
    }
    local out = {}
    carry = 0
    for i = 1, 4 do
        local x = words[i] + le32(key, 13 + 4 * i) + carry
        carry = x >= TWO32 and 1 or 0
        out[i] = to_le32(integer(x % TWO32))
    end
    return table.concat(out)
end

local function chacha_open(key, nonce, ad, sealed)
    local text, tag = sub(sealed, 1, -17), sub(sealed, -16)
    local lengths = to_le32(#ad) .. rep("\0", 4) .. to_le32(#text) .. rep("\0", 4)
    if poly1305(sub(chacha_block(key, 0, nonce), 1, 32), padded(ad, 16) .. padded(text, 16) .. lengths) ~= tag then return nil end
    local out = {}
    for at = 1, #text, 64 do
        local piece = sub(text, at, at + 63)
        out[#out + 1] = xor_bytes(piece, chacha_block(key, integer((at - 1) / 64) + 1, nonce))
    end
    return table.concat(out)
end

-- --- AEGIS-128L and AEGIS-256 (draft-irtf-cfrg-aegis-aead) ---

local C0 = { 0x00010102, 0x0305080d, 0x15223759, 0x90e97962 }
local C1 = { 0xdb3d1855, 0x6dc22ff1, 0x20113142, 0x73b528dd }

local function block(s, i)
    return { be32(s, i), be32(s, i + 4), be32(s, i + 8), be32(s, i + 12) }
end

local function xor4(a, b)
    return { bxor(a[1], b[1]), bxor(a[2], b[2]), bxor(a[3], b[3]), bxor(a[4], b[4]) }
end

local function and4(a, b)
    return { band(a[1], b[1]), band(a[2], b[2]), band(a[3], b[3]), band(a[4], b[4]) }
end

local function bytes4(a)
    return to_be32(a[1]) .. to_be32(a[2]) .. to_be32(a[3]) .. to_be32(a[4])
end

-- Move a state of `n` blocks on; `added` has what goes into some of them.
local function aegis_update(s, n, added)
    local before = s[n]
    for i = 1, n do
        local own = s[i]
        local k = added[i] and xor4(own, added[i]) or own
        s[i] = { aes_round(before[1], before[2], before[3], before[4], k[1], k[2], k[3], k[4]) }
        before = own
    end
end

local function bit_lengths(ad, text)
    return block(to_le32(ad * 8) .. rep("\0", 4) .. to_le32(text * 8) .. rep("\0", 4), 1)
end

local function aegis128l_open(key, nonce, ad, sealed)
    local k, n = block(key, 1), block(nonce, 1)
    local s = { xor4(k, n), C1, C0, C1, xor4(k, n), xor4(k, C0), xor4(k, C1), xor4(k, C0) }
    local function update(a, b) aegis_update(s, 8, { [1] = a, [5] = b }) end
    for _ = 1, 10 do update(n, k) end
    local padded_ad, text, out = padded(ad, 32), sub(sealed, 1, -33), {}
    for at = 1, #padded_ad, 32 do update(block(padded_ad, at), block(padded_ad, at + 16)) end
    local blocks = padded(text, 32)
    for at = 1, #blocks, 32 do
        local a = xor4(block(blocks, at), xor4(xor4(s[7], s[2]), and4(s[3], s[4])))
        local b = xor4(block(blocks, at + 16), xor4(xor4(s[3], s[6]), and4(s[7], s[8])))
        local plain = bytes4(a) .. bytes4(b)
        if at + 31 > #text then
            plain = sub(plain, 1, #text - at + 1)
            local whole = padded(plain, 32)
            a, b = block(whole, 1), block(whole, 17)
        end
        out[#out + 1] = plain
        update(a, b)
    end
    local t = xor4(s[3], bit_lengths(#ad, #text))
    for _ = 1, 7 do update(t, t) end
    local tag = bytes4(xor4(xor4(s[1], s[2]), xor4(s[3], s[4]))) .. bytes4(xor4(xor4(s[5], s[6]), xor4(s[7], s[8])))
    return tag == sub(sealed, -32) and table.concat(out) or nil
end

local function aegis256_open(key, nonce, ad, sealed)
    local k0, k1, n0, n1 = block(key, 1), block(key, 17), block(nonce, 1), block(nonce, 17)
    local m0, m1 = xor4(k0, n0), xor4(k1, n1)
    local s = { m0, m1, C1, C0, xor4(k0, C0), xor4(k1, C1) }
    local function update(a) aegis_update(s, 6, { a }) end
    for _ = 1, 4 do update(k0); update(k1); update(m0); update(m1) end
    local padded_ad, text, out = padded(ad, 16), sub(sealed, 1, -33), {}
    for at = 1, #padded_ad, 16 do update(block(padded_ad, at)) end
    local blocks = padded(text, 16)
    for at = 1, #blocks, 16 do
        local a = xor4(block(blocks, at), xor4(xor4(s[2], s[5]), xor4(s[6], and4(s[3], s[4]))))
        local plain = bytes4(a)
        if at + 15 > #text then
            plain = sub(plain, 1, #text - at + 1)
            a = block(padded(plain, 16), 1)
        end
        out[#out + 1] = plain
        update(a)
    end
    local t = xor4(s[4], bit_lengths(#ad, #text))
    for _ = 1, 7 do update(t) end
    local tag = bytes4(xor4(xor4(s[1], s[2]), s[3])) .. bytes4(xor4(xor4(s[4], s[5]), s[6]))
    return tag == sub(sealed, -32) and table.concat(out) or nil
end

-- By number on the wire: name, bytes of key, nonce and tag, and how a packet is opened (nil: its tag is wrong).
M.suites = {
    [1] = { name = "ChaCha20-Poly1305", key = 32, nonce = 12, tag = 16, open = chacha_open },
    [2] = { name = "AES-256-GCM", key = 32, nonce = 12, tag = 16, open = gcm_open },
    [3] = { name = "AEGIS-128L", key = 16, nonce = 16, tag = 32, open = aegis128l_open },
    [4] = { name = "AEGIS-256", key = 32, nonce = 32, tag = 32, open = aegis256_open },
}

-- Key and IV of an epoch, and the secret of the next one (PK-19).
function M.derive(suite, secret)
    local number = char(suite)
    local s = M.suites[suite]
    return {
        suite = s,
        key = sub(M.blake2b(32, secret, "interpeer key " .. number), 1, s.key),
        iv = sub(M.blake2b(32, secret, "interpeer iv  " .. number), 1, s.nonce),
    }
end

function M.next_secret(suite, secret)
    return M.blake2b(32, secret, "interpeer next" .. char(suite))
end

-- Open what is behind a packet's header (PK-21, PK-22); `counter` is 8 bytes, `header` 16, as they are before masking.
function M.open(keys, path, counter, header, sealed)
    if #sealed < keys.suite.tag then return nil end
    local nonce = xor_bytes(keys.iv, rep("\0", keys.suite.nonce - 12) .. to_be32(path) .. counter)
    return keys.suite.open(keys.key, nonce, header, sealed)
end

return M
