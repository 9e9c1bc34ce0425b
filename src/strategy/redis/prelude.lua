-- What the algorithms share. The whole script is this file, the algorithms and the driver, one after the other.

local algorithms = {}
local FOREIGN_RECORD, CLOCK_BEHIND = 1, 2        -- notices
local CLOCK_TOLERANCE = 1000000                  -- microseconds that a clock may step back without a notice
local LATEST, LARGEST = 2^52, 2^50               -- past these a record is not ours
local LONGEST_FILL = 50 * 365 * 86400000000      -- microseconds
local EXACT = 2^53                               -- below it a number holds every integer

-- A plain decimal below 2^53 as a number; nil for anything else, and for the false that stands for a missing field.
local function integer(text)
  if not text or #text == 0 or #text > 16 or string.find(text, '%D') then return nil end
  local number = tonumber(text)
  if number < EXACT then return number end
end

-- Exact: a quotient of integers below 2^53 rounds to an integer only if it is one.
local function ceil_div(a, b)
  return math.ceil(a / b)
end

-- A notice if any of the first n fields is there: then something is, but nothing of ours.
local function is_foreign(record, n)
  for i = 1, n do
    if record[i] then return FOREIGN_RECORD end
  end
  return 0
end
