-- A Wireshark dissector for interpeer (docs/spec, chapters 3, 4, 6, 14, 16, 17 and 19). How to use it is in docs/wireshark.md.
--
-- Handshake messages are shown as far as they are in the clear. Packets are opened with a key log (Config(key_log=...) or
-- INTERPEER_KEYLOG): header unmasked, tag verified, every frame listed. interpeer_crypto.lua has to lie beside this file.

if not Proto then return end -- not under Wireshark

local here = debug.getinfo(1, "S").source:match("^@(.*)[/\\]") or "."
local crypto = dofile(here .. "/interpeer_crypto.lua")

local interpeer = Proto("interpeer", "Interpeer")
local BASE = base

-- --- fields ---

local f = {
    kind = ProtoField.uint8("interpeer.type", "Type", BASE.HEX,
        { [0x41] = "Init", [0x42] = "Response", [0x43] = "Cookie reply", [0x44] = "Versions reply" }),
    version = ProtoField.uint8("interpeer.version", "Version"),
    cid = ProtoField.uint64("interpeer.cid", "Connection id", BASE.HEX),
    direction = ProtoField.uint64("interpeer.direction", "First connection id of this direction", BASE.HEX),
    ephemeral = ProtoField.bytes("interpeer.ephemeral", "Ephemeral key"),
    static = ProtoField.bytes("interpeer.static", "Static key, encrypted"),
    payload = ProtoField.bytes("interpeer.payload", "Payload, encrypted"),
    mac1 = ProtoField.bytes("interpeer.mac1", "mac1"),
    mac2 = ProtoField.bytes("interpeer.mac2", "mac2"),
    nonce = ProtoField.bytes("interpeer.nonce", "Nonce"),
    sealed = ProtoField.bytes("interpeer.sealed", "Sealed"),
    masked = ProtoField.bytes("interpeer.masked", "Flags and counter, masked"),
    flags = ProtoField.uint8("interpeer.flags", "Flags", BASE.HEX),
    epoch = ProtoField.uint64("interpeer.epoch", "Epoch of the key"),
    number = ProtoField.uint64("interpeer.packet_number", "Packet number"),
    path = ProtoField.uint32("interpeer.path", "Path"),
    suite = ProtoField.string("interpeer.cipher", "Cipher"),
    length = ProtoField.uint32("interpeer.length", "Length of the packet"),
    tag = ProtoField.bytes("interpeer.tag", "Tag"),
    frame = ProtoField.none("interpeer.frame", "Frame"),
    said = ProtoField.string("interpeer.frame.text", "In short"),
    frame_type = ProtoField.uint64("interpeer.frame.type", "Type", BASE.HEX),
    data = ProtoField.bytes("interpeer.data", "Data"),
    issued = ProtoField.bytes("interpeer.issued_cid", "Connection id issued"),
    token = ProtoField.bytes("interpeer.reset_token", "Token of its stateless reset"),
    reason = ProtoField.string("interpeer.reason", "Reason"),
    range = ProtoField.string("interpeer.ack.range", "Acknowledged"),
    fin = ProtoField.bool("interpeer.fin", "End of the stream or channel"),
    message = ProtoField.none("interpeer.message", "Message"),
    message_is_unordered = ProtoField.bool("interpeer.message.unordered", "Not ordered", 32, nil, 0x80000000),
    message_bytes = ProtoField.uint32("interpeer.message.size", "Size", BASE.DEC, nil, 0x1fffffff),
    message_number = ProtoField.uint32("interpeer.message.number", "Number"),
    covered = ProtoField.uint8("interpeer.repair.count", "Messages that it covers"),
    seed = ProtoField.uint16("interpeer.repair.seed", "Seed"),
    symbol = ProtoField.bytes("interpeer.repair.symbol", "Symbol"),
}
-- Numbers in frames, by the names that FRAMES below uses: varints all.
local NUMBERS = {
    stream = { "interpeer.stream.id", "Stream" },
    channel = { "interpeer.channel.id", "Channel" },
    offset = { "interpeer.offset", "Offset" },
    within = { "interpeer.within", "Behind the start of its message" },
    size = { "interpeer.dropped.size", "Size, with the header" },
    number = { "interpeer.dropped.number", "Number of the first message" },
    count = { "interpeer.dropped.count", "Messages that end here" },
    flags = { "interpeer.channel.flags", "Flags (1 repeated when lost, 2 ordered, 4 closes on loss)" },
    class = { "interpeer.channel.class", "Class (0 is the most urgent)" },
    deadline = { "interpeer.channel.deadline", "Deadline (microseconds; 0 is none)" },
    messages = { "interpeer.channel.messages", "Messages after which repairs follow" },
    repairs = { "interpeer.channel.repairs", "Repairs that follow" },
    length = { "interpeer.data.length", "Length of the data" },
    final = { "interpeer.final_size", "Final size" },
    code = { "interpeer.code", "Code" },
    limit = { "interpeer.limit", "Limit" },
    path = { "interpeer.frame.path", "Path" },
    sequence = { "interpeer.sequence", "Sequence number" },
    status = { "interpeer.path_status", "Status" },
    epoch = { "interpeer.rekey.epoch", "Epoch that is to be fresh" },
    largest = { "interpeer.ack.largest", "Largest acknowledged" },
    delay = { "interpeer.ack.delay", "Delay (microseconds)" },
    further = { "interpeer.ack.range_count", "Further ranges" },
    first = { "interpeer.ack.first", "First range" },
    oldest = { "interpeer.repair.oldest", "Oldest message that it covers" },
    gap = { "interpeer.ack.gap", "Gap" },
    run = { "interpeer.ack.length", "Length of the range" },
    ect0 = { "interpeer.ack.ect0", "Received with ECT(0)" },
    ect1 = { "interpeer.ack.ect1", "Received with ECT(1)" },
    ce = { "interpeer.ack.ce", "Received with CE" },
}
local all = {}
for _, field in pairs(f) do all[#all + 1] = field end
for name, number in pairs(NUMBERS) do
    NUMBERS[name] = ProtoField.uint64(number[1], number[2])
    all[#all + 1] = NUMBERS[name]
end
interpeer.fields = all

local e = {
    no_key = ProtoExpert.new("interpeer.no_key", "No key for this connection id", expert.group.UNDECODED, expert.severity.NOTE),
    forged = ProtoExpert.new("interpeer.forged", "The tag is wrong: forged, damaged, or of another key",
        expert.group.CHECKSUM, expert.severity.WARN),
    reserved = ProtoExpert.new("interpeer.reserved", "Reserved flags are set", expert.group.PROTOCOL, expert.severity.WARN),
    short = ProtoExpert.new("interpeer.short", "Too short for what it claims to be", expert.group.MALFORMED, expert.severity.WARN),
    malformed = ProtoExpert.new("interpeer.malformed", "A frame cannot be read", expert.group.MALFORMED, expert.severity.ERROR),
    unknown = ProtoExpert.new("interpeer.unknown_frame", "A frame of an unknown type", expert.group.PROTOCOL, expert.severity.WARN),
    version = ProtoExpert.new("interpeer.other_version", "Another version", expert.group.PROTOCOL, expert.severity.NOTE),
    closed = ProtoExpert.new("interpeer.closed", "Closed because of an error", expert.group.RESPONSE_CODE, expert.severity.WARN),
}
interpeer.experts = { e.no_key, e.forged, e.reserved, e.short, e.malformed, e.unknown, e.version, e.closed }

-- --- preferences and the key log ---

interpeer.prefs.keylog = Pref.string("Key log", os.getenv("INTERPEER_KEYLOG") or "", "A file written with INTERPEER_KEYLOG")

local ids = {} -- by connection id, 8 bytes: the direction of the packets that carry it, and their path
local directions = {} -- by mask key, which a direction keeps for its life: its secrets and keys
local strange = {} -- connection ids that belong to no direction, by how long the key log was when that was found
local opened = {} -- by number of frame in the capture, and place in it: what a packet says, or why it cannot be read
local log_path, log_at = nil, 0

local function unhex(text)
    return (text:gsub("..", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- Read what the key log has grown by; tell whether it has.
local function read_key_log()
    local path = interpeer.prefs.keylog
    if path ~= log_path then ids, directions, strange, opened, log_path, log_at = {}, {}, {}, {}, path, 0 end
    local file = path ~= "" and io.open(path, "rb")
    if not file then return false end
    file:seek("set", log_at)
    local text = file:read("*a") or ""
    file:close()
    text = text:match("^(.*\n)") or "" -- a line that is not whole is still being written
    log_at = log_at + #text
    for cid, other, suite, epoch, secret, mask in
        text:gmatch("INTERPEER_SECRET (%x+) (%x+) (%d+) (%d+) (%x+) (%x+)\r?\n") do
        suite = tonumber(suite)
        if #cid == 16 and #other == 16 and #secret == 64 and #mask == 32 and crypto.suites[suite] then
            local d = directions[mask] or { suite = suite, mask = unhex(mask), secrets = {}, given = {}, epochs = {} }
            epoch, secret, cid = tonumber(epoch), unhex(secret), unhex(cid)
            if d.secrets[epoch] ~= secret then -- it is no longer derived from the one before, nor are those behind it
                for known in pairs(d.secrets) do
                    if known > epoch and not d.given[known] then d.secrets[known] = nil end
                end
                for known in pairs(d.epochs) do
                    if known >= epoch then d.epochs[known] = nil end
                end
                d.secrets[epoch] = secret
            end
            d.given[epoch] = true
            directions[mask] = d
            if epoch == 0 then
                d.first, d.other = d.first or cid, unhex(other)
                ids[cid] = ids[cid] or { keys = d, path = 0 }
            end
        end
    end
    return #text > 0
end

local function direction_of(cid)
    if not ids[cid] then read_key_log() end
    return ids[cid]
end

-- The keys of an epoch: from its own secret, or from that of the nearest one before.
local function keys_of(d, epoch)
    if d.epochs[epoch] then return d.epochs[epoch] end
    local from = epoch
    while from >= 0 and not d.secrets[from] do from = from - 1 end
    if from < 0 then return nil end
    for i = from + 1, epoch do d.secrets[i] = crypto.next_secret(d.suite, d.secrets[i - 1]) end
    d.epochs[epoch] = crypto.derive(d.suite, d.secrets[epoch])
    return d.epochs[epoch]
end

-- Which epochs the two bits in a header may mean: in a capture without a beginning, one of many; later the nearest, unless
-- much is missing.
local MANY_EPOCHS, NEAR_EPOCHS = 64, 16

local function epochs_to_try(d, bits)
    if d.epoch then
        local step = (bits - d.epoch) % 4
        local list = { step < 3 and d.epoch + step or d.epoch - 1 }
        for epoch = list[1] + 4, d.epoch + NEAR_EPOCHS, 4 do list[#list + 1] = epoch end
        return list
    end
    local list = {}
    for epoch = bits, MANY_EPOCHS - 1, 4 do list[#list + 1] = epoch end
    return list
end

-- Open a packet as one of a direction and a path. Return { text, flags, counter, epoch, ... }, or { problem = expert }.
local function open_as(bytes, d, path)
    local word = crypto.xor_bytes(bytes:sub(9, 16), crypto.siphash(d.mask, bytes:sub(17, 32)))
    local flags = word:byte(1)
    if flags > 3 then return { problem = e.reserved } end
    local counter = "\0" .. word:sub(2)
    local header = bytes:sub(1, 8) .. word
    for _, epoch in ipairs(epochs_to_try(d, flags)) do
        local keys = epoch >= 0 and keys_of(d, epoch)
        local text = keys and crypto.open(keys, path, counter, header, bytes:sub(17))
        if text then
            if not d.epoch or epoch > d.epoch then d.epoch = epoch end
            return { text = text, flags = flags, counter = counter, epoch = epoch, path = path, keys = d }
        end
    end
    return { problem = e.forged }
end

-- An id that was issued before the capture began belongs to one of these directions, if to any.
local MOST_DIRECTIONS, FIRST_PATHS = 32, 4

local function find_by_trying(bytes)
    local cid, count = bytes:sub(1, 8), 0
    if strange[cid] == log_at then return nil end
    for _, d in pairs(directions) do
        count = count + 1
        if count > MOST_DIRECTIONS then break end
        for path = 0, FIRST_PATHS - 1 do
            local o = open_as(bytes, d, path)
            if o.text then
                ids[cid] = { keys = d, path = path }
                return o
            end
        end
    end
    strange[cid] = log_at
    return nil
end

local function open_packet(bytes)
    local known = direction_of(bytes:sub(1, 8))
    if known then return open_as(bytes, known.keys, known.path) end
    return find_by_trying(bytes) or { problem = e.no_key }
end

-- Note a connection id that a packet's sender has issued: packets to the sender will carry it.
local function learn_id(sent_in, cid, path)
    local back = ids[sent_in.other or ""]
    if back and not ids[cid] then ids[cid] = { keys = back.keys, path = path } end
end

-- --- frames ---

-- By type: a name, and the fields behind it. A string names a varint; { bytes = n } is so many bytes, { sized = true } a
-- varint and as many bytes, { rest = true } the rest of the packet.
local FRAMES = {
    [0x01] = { "PING" },
    [0x04] = { "RESET_STREAM", "stream", "code", "final" },
    [0x05] = { "STOP_SENDING", "stream", "code" },
    [0x06] = { "CLOSE", "code", { sized = true, field = f.reason } },
    [0x07] = { "CLOSE_APP", "code", { sized = true, field = f.reason } },
    [0x10] = { "MAX_DATA", "limit" },
    [0x11] = { "MAX_STREAM_DATA", "stream", "limit" },
    [0x12] = { "MAX_STREAMS", "limit" },
    [0x16] = { "DATAGRAM", { rest = true } },
    [0x17] = { "DATAGRAM", { sized = true } },
    [0x18] = { "NEW_CONNECTION_ID", "path", "sequence", { bytes = 8, field = f.issued }, { bytes = 16, field = f.token } },
    [0x19] = { "RETIRE_CONNECTION_ID", "path", "sequence" },
    [0x1a] = { "PATH_CHALLENGE", { bytes = 8 } },
    [0x1b] = { "PATH_RESPONSE", { bytes = 8 } },
    [0x1c] = { "PATH_ABANDON", "path", "code" },
    [0x1d] = { "PATH_STATUS", "path", "sequence", "status" },
    [0x1e] = { "REKEY", "epoch", { bytes = 96 } },
    [0x1f] = { "REKEY_ANSWER", "epoch", { bytes = 48 } },
    [0x20] = { "CHANNEL", "channel", "sequence", "flags", "class", "deadline", "messages", "repairs" },
    [0x21] = { "MAX_CHANNELS", "limit" },
    [0x22] = { "CHANNEL_MAX_DATA", "channel", "limit" },
    [0x23] = { "CHANNEL_RESET", "channel", "code", "final" },
    [0x24] = { "CHANNEL_STOP", "channel", "code" },
    [0x25] = { "DROPPED", "channel", "offset", "within", "size", "number", "count" },
}

local Reader = {} -- where we stand in a payload; `n` is set to nil by what cannot be read
Reader.__index = Reader

function Reader:varint(tree, field)
    local at, left = self.at, self.tvb:len() - self.at
    local size = left > 0 and 2 ^ math.floor(self.tvb(at, 1):uint() / 64) or 1
    if left < size then self.is_bad = true; return 0 end
    size = math.floor(size)
    local high, low = 0, self.tvb(at, math.min(size, 4)):uint()
    if size == 8 then
        high, low = low % 0x40000000, self.tvb(at + 4, 4):uint()
    else
        low = low % (64 * 256 ^ (size - 1))
    end
    low = math.floor(low)
    self.at = at + size
    self.exact = UInt64.new(low, high) -- a number of Lua has 53 bits
    if tree then tree:add(field, self.tvb(at, size), self.exact) end
    return high * 4294967296 + low
end

function Reader:bytes(tree, n, field)
    if n > self.tvb:len() - self.at then self.is_bad = true; return nil end
    if n == 0 then return "" end
    local range = self.tvb(self.at, n)
    tree:add(field or f.data, range)
    self.at = self.at + n
    return range
end

local function uint64(bytes)
    local a, b, c, d, e1, f1, g, h = bytes:byte(1, 8)
    return UInt64.new(((e1 * 256 + f1) * 256 + g) * 256 + h, ((a * 256 + b) * 256 + c) * 256 + d)
end

local function number_text(n)
    return string.format("%.0f", n)
end

local function read_ack(r, tree, with_ecn)
    local path = r:varint(tree, NUMBERS.path)
    local high = r:varint(tree, NUMBERS.largest)
    r:varint(tree, NUMBERS.delay)
    local count = r:varint(tree, NUMBERS.further)
    local low = high - r:varint(tree, NUMBERS.first)
    local ranges = {}
    for i = 0, count do
        if r.is_bad or low < 0 then r.is_bad = true; return "" end
        if i > 0 then
            high = low - r:varint(tree, NUMBERS.gap) - 2
            low = high - r:varint(tree, NUMBERS.run)
            if r.is_bad or low < 0 then r.is_bad = true; return "" end
        end
        local text = number_text(low) .. "-" .. number_text(high)
        tree:add(f.range, text):set_generated()
        ranges[#ranges + 1] = text
    end
    if with_ecn then
        r:varint(tree, NUMBERS.ect0)
        r:varint(tree, NUMBERS.ect1)
        r:varint(tree, NUMBERS.ce)
    end
    return (path > 0 and "path " .. number_text(path) .. " " or "") .. table.concat(ranges, ",")
end

local function read_stream(r, tree, type)
    local id = r:varint(tree, NUMBERS.stream)
    local offset = type % 8 >= 4 and r:varint(tree, NUMBERS.offset) or 0
    local n = r.tvb:len() - r.at
    if type % 4 >= 2 then n = r:varint(tree, NUMBERS.length) end
    if r.is_bad then return "" end
    r:bytes(tree, n)
    tree:add(f.fin, type % 2 == 1):set_generated()
    return string.format("%s offset %s length %s%s", number_text(id), number_text(offset), number_text(n), type % 2 == 1 and " fin" or "")
end

local MESSAGE_HEADER_BYTES = 8

-- Take apart what begins with the header of a message: one message or several, the last of which may be cut.
local function show_messages(r, tree, n)
    local stop = r.at + n
    while r.at < stop do
        if stop - r.at < MESSAGE_HEADER_BYTES then r.is_bad = true; return end
        local size = r.tvb(r.at, 4):bitfield(3, 29)
        local here = math.min(size, stop - r.at - MESSAGE_HEADER_BYTES)
        local node = tree:add(f.message, r.tvb(r.at, MESSAGE_HEADER_BYTES + here))
        node:add(f.message_is_unordered, r.tvb(r.at, 4))
        node:add(f.message_bytes, r.tvb(r.at, 4))
        node:add(f.message_number, r.tvb(r.at + 4, 4))
        r.at = r.at + MESSAGE_HEADER_BYTES
        r:bytes(node, here)
    end
end

local function read_messages(r, tree, type)
    local id = r:varint(tree, NUMBERS.channel)
    local offset = r:varint(tree, NUMBERS.offset)
    local within = r:varint(tree, NUMBERS.within)
    local n = r.tvb:len() - r.at
    if type % 4 >= 2 then n = r:varint(tree, NUMBERS.length) end
    if r.is_bad or n > r.tvb:len() - r.at then r.is_bad = true; return "" end
    if within == 0 then show_messages(r, tree, n) else r:bytes(tree, n) end
    tree:add(f.fin, type % 2 == 1):set_generated()
    return string.format("channel %s offset %s within %s length %s%s", number_text(id), number_text(offset), number_text(within),
        number_text(n), type % 2 == 1 and " fin" or "")
end

local function read_repair(r, tree)
    local id = r:varint(tree, NUMBERS.channel)
    local n = r:varint(tree, NUMBERS.length)
    local stop = r.at + n
    if r.is_bad or stop > r.tvb:len() then r.is_bad = true; return "" end
    r:varint(tree, NUMBERS.oldest)
    r:bytes(tree, 1, f.covered)
    r:bytes(tree, 2, f.seed)
    if r.is_bad or stop - r.at < 2 then r.is_bad = true; return "" end
    r:bytes(tree, stop - r.at, f.symbol)
    return string.format("channel %s length %s", number_text(id), number_text(n))
end

local function read_listed(r, tree, spec)
    local words = {}
    for i = 2, #spec do
        local part = spec[i]
        if type(part) == "string" then
            local n = r:varint(tree, NUMBERS[part])
            if part == "path" then r.path = n end
            words[#words + 1] = part .. " " .. tostring(r.exact)
        else
            local n = part.bytes or part.sized and r:varint(tree, NUMBERS.length) or r.tvb:len() - r.at
            if r.is_bad then return "" end
            if not part.bytes then words[#words + 1] = "length " .. number_text(n) end
            if not r:bytes(tree, n, part.field) then return "" end
        end
    end
    return table.concat(words, " ")
end

-- Read one frame into the tree; return what to say of it, or nil when it cannot be read.
local function read_frame(r, tree)
    local start = r.at
    local node = tree:add(f.frame, r.tvb(start))
    local type = r:varint(node, f.frame_type)
    local spec, name, said = FRAMES[type], nil, nil
    if type == 0 then
        while r.at < r.tvb:len() and r.tvb(r.at, 1):uint() == 0 do r.at = r.at + 1 end
        name, said = "PADDING", "length " .. (r.at - start)
    elseif type == 0x02 or type == 0x03 then
        name, said = "ACK", read_ack(r, node, type == 0x03)
    elseif type >= 0x08 and type <= 0x0f then
        name, said = "STREAM", read_stream(r, node, type)
    elseif type >= 0x2c and type <= 0x2f then
        name, said = "MESSAGES", read_messages(r, node, type)
    elseif type == 0x26 then
        name, said = "REPAIR", read_repair(r, node)
    elseif spec then
        name, said = spec[1], read_listed(r, node, spec)
        if type == 0x18 and not r.is_bad then learn_id(r.direction, r.tvb:raw(r.at - 24, 8), r.path) end
        if type == 0x06 and not r.is_bad and r.tvb(start + 1, 1):uint() ~= 0 then node:add_proto_expert_info(e.closed) end
    elseif type >= 0x40 then
        name, said = "UNKNOWN", "length " .. number_text(r:varint(node, NUMBERS.length))
        r.at = start
        r:varint()
        local n = r:varint()
        if not r.is_bad then r:bytes(node, n) end
        node:add_proto_expert_info(e.unknown)
    else
        r.is_bad = true
    end
    if r.is_bad then
        node:set_text("Frame of type " .. string.format("0x%x", type))
        node:add_proto_expert_info(e.malformed)
        return nil
    end
    local text = said == "" and name or name .. " " .. said
    node:set_len(r.at - start)
    node:set_text("Frame: " .. text)
    node:add(f.said, r.tvb(start, r.at - start), text):set_hidden()
    return text
end

-- --- packets and messages ---

-- Show a packet; return what to say of it.
local function show_packet(tvb, pinfo, tree, key)
    local n = tvb:len()
    tree:add(f.cid, tvb(0, 8))
    tree:add(f.length, n):set_generated()
    tree:add(f.masked, tvb(8, 8))
    if not opened[key] or opened[key].problem == e.no_key then
        opened[key] = n < 32 and { problem = e.short } or open_packet(tvb:raw(0, n))
    end
    local o = opened[key]
    if o.problem then
        tree:add(f.payload, tvb(16))
        tree:add_proto_expert_info(o.problem)
        return "Packet, " .. (o.problem == e.no_key and "no key" or "cannot be opened")
    end
    local tag = crypto.suites[o.keys.suite].tag
    local number = uint64(o.counter)
    tree:add(f.flags, tvb(8, 1), o.flags)
    tree:add(f.number, tvb(9, 7), number)
    tree:add(f.epoch, UInt64.new(o.epoch)):set_generated()
    tree:add(f.path, o.path):set_generated()
    if o.keys.first then tree:add(f.direction, uint64(o.keys.first)):set_generated() end
    tree:add(f.suite, crypto.suites[o.keys.suite].name):set_generated()
    tree:add(f.tag, tvb(n - tag, tag))
    local words = {}
    if #o.text > 0 then
        local r = setmetatable({ tvb = ByteArray.new(o.text, true):tvb("Opened packet"), at = 0, direction = o.keys }, Reader)
        while r.at < r.tvb:len() do
            local text = read_frame(r, tree)
            if not text then words[#words + 1] = "malformed"; break end
            words[#words + 1] = text
        end
    end
    return "Packet " .. tostring(number) .. (o.path > 0 and " on path " .. o.path or "") .. ": " .. table.concat(words, "; ")
end

local function show_message(tvb, pinfo, tree)
    local n, kind = tvb:len(), tvb(0, 1):uint()
    local names = { [0x41] = "Init", [0x42] = "Response", [0x43] = "Cookie reply", [0x44] = "Versions reply" }
    tree:add(f.kind, tvb(0, 1))
    local version = tree:add(f.version, tvb(1, 1))
    if tvb(1, 1):uint() ~= 1 then version:add_proto_expert_info(e.version) end
    tree:add(f.cid, tvb(2, 8))
    local function part(field, at, size)
        if size <= 0 or at + size > n then tree:add_proto_expert_info(e.short) else tree:add(field, tvb(at, size)) end
    end
    if kind == 0x41 then
        part(f.ephemeral, 10, 32)
        part(f.static, 42, 48)
        part(f.payload, 90, n - 122)
        part(f.mac1, n - 32, 16)
        part(f.mac2, n - 16, 16)
    elseif kind == 0x42 then
        part(f.ephemeral, 10, 32)
        part(f.payload, 42, n - 42)
    else
        part(f.nonce, 10, 24)
        part(f.sealed, 34, n - 34)
    end
    return names[kind] .. ", version " .. tvb(1, 1):uint()
end

-- Where capturing comes before segmentation (loopback, virtual links), one datagram of the capture is several packets that
-- the kernel was given together: of equal size, the last perhaps shorter, each with an id of one connection.
local function is_cut_at(bytes, size, cid)
    for at = 1 + size, #bytes, size do
        local there = bytes:sub(at, at + 7)
        if there ~= cid and not ids[there] then return false end
    end
    return true
end

local function segment_of(bytes)
    local cid = bytes:sub(1, 8)
    local again = bytes:find(cid, 33, true)
    if again and is_cut_at(bytes, again - 1, cid) then return again - 1 end
    if ids[cid] then -- the id has changed behind the first
        for other in pairs(ids) do
            again = bytes:find(other, 33, true)
            if again and is_cut_at(bytes, again - 1, cid) then return again - 1 end
        end
    end
    return #bytes
end

local function is_message(tvb)
    local kind = tvb(0, 1):uint()
    return kind >= 0x41 and kind <= 0x44 and tvb:len() >= 10
end

function interpeer.dissector(tvb, pinfo, root)
    if tvb:len() == 0 then return 0 end
    local is_packet = tvb(0, 1):uint() >= 0x80 and tvb:len() >= 16
    if not is_packet and not is_message(tvb) then return 0 end
    pinfo.cols.protocol = "interpeer"
    if not is_packet then
        pinfo.cols.info = show_message(tvb, pinfo, root:add(interpeer, tvb()))
        return tvb:len()
    end
    local words, segment = {}, segment_of(tvb:raw(0, tvb:len()))
    for at = 0, tvb:len() - 1, segment do
        local part = tvb(at, math.min(segment, tvb:len() - at)):tvb()
        words[#words + 1] = show_packet(part, pinfo, root:add(interpeer, part()), pinfo.number .. "/" .. at)
    end
    pinfo.cols.info = (segment < tvb:len() and #words .. " packets: " or "") .. table.concat(words, " | ")
    return tvb:len()
end

function interpeer.init()
    ids, directions, strange, opened, log_path, log_at = {}, {}, {}, {}, nil, 0
end

-- An init is told by its size and form, and makes its conversation ours; a packet elsewhere, by an id in the key log.
local INIT_BYTES = 1200

local function is_ours(tvb)
    local n = tvb:len()
    if n < 16 then return false end
    if tvb(0, 1):uint() >= 0x80 then
        return n >= 32 and (direction_of(tvb:raw(0, 8)) or find_by_trying(tvb:raw(0, n))) ~= nil
    end
    return n == INIT_BYTES and tvb(0, 1):uint() == 0x41 and tvb(1, 1):uint() == 1 and tvb(2, 1):uint() >= 0x80
end

interpeer:register_heuristic("udp", function(tvb, pinfo, tree)
    if not is_ours(tvb) then return false end
    pinfo.conversation = interpeer
    interpeer.dissector(tvb, pinfo, tree)
    return true
end)
DissectorTable.get("udp.port"):add_for_decode_as(interpeer)
