-- What the algorithms share. The whole script is this file, the algorithms and the driver, one after the other.
--
-- An algorithm has
--   read(key)        its record in Redis: a table of its fields, at most six, or an error. One that this script has decided on
--                    before is one of numbers, and its seventh is when it is fresh again
--   step(record, now, cost, capacity, gain, unit)
--                    retry_after (0 if the cost is taken), how the bucket stands then (remaining, reset_after, next_after),
--                    a notice; of a bucket from which it was taken also when that is fresh again, and its record
--   credit(...)      when it is fresh again and its record, once something was given back; nothing where that changes nothing
--   write(key, read, ...)
--                    writes a record, of which some fields may be as they were read

-- Algorithms by name, each made when it is first asked for: a call pays for those that it uses.
local makers = {}
local algorithms = setmetatable({}, {
  __index = function(made, name)
    makers[name]()
    return rawget(made, name)
  end,
})
local ceil, find, format = math.ceil, string.find, string.format
local call = redis.pcall                         -- protected: one bad record is the fault of its own request alone
local FOREIGN_RECORD, CLOCK_BEHIND = 1, 2        -- notices
local CLOCK_TOLERANCE = 1000000                  -- microseconds that a clock may step back without a notice
local LATEST, LARGEST = 2^52, 2^50               -- past these a record is not ours
local LONGEST_LEASE = 60000000                   -- microseconds; a record that says more lends nothing
local LONGEST_FILL = 50 * 365 * 86400000000      -- microseconds
local EXACT = 2^53                               -- below it a number holds every integer

-- A plain decimal below 2^53 as a number; nil for anything else, and for the false that stands for a missing field. A
-- number stands for itself.
local function integer(text)
  if type(text) == 'number' then return text end
  if not text or not find(text, '^%d+$') then return nil end
  local number = text + 0
  if number < EXACT then return number end
end

-- The first four of a record as numbers, whatever their size, which the algorithms look at; nothing if one is no plain decimal.
local function integers(record)
  local a, b, c, d = record[1], record[2], record[3], record[4]
  if record[7] then return a, b, c, d end
  if not (a and b and c and d) then return nil end
  if a == '' or b == '' or c == '' or d == '' or not find(a .. b .. c .. d, '^%d+$') then return nil end
  return a + 0, b + 0, c + 0, d + 0
end

-- Exact: a quotient of integers below 2^53 rounds to an integer only if it is one.
local function ceil_div(a, b)
  return ceil(a / b)
end

-- How integers are written. Redis would format numbers more slowly, and so would Lua as what they are, doubles; but an
-- integer of C may have 32 bits.
local DECIMAL = format('%d', LATEST) == '4503599627370496' and '%d' or '%.0f'

-- An integer that many records have, such as the moment or what is of a quota, as it is written.
local as_text = setmetatable({}, {
  __index = function(known, number)
    local text = format(DECIMAL, number)
    known[number] = text
    return text
  end,
})

-- A notice if any of the first n fields is there: then something is, but nothing of ours.
local function is_foreign(record, n)
  for i = 1, n do
    if record[i] then return FOREIGN_RECORD end
  end
  return 0
end
