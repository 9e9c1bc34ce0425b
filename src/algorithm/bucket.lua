-- A bucket at a time, counted in units, the twin of bucket.rs: what tokenbucket and gcra share.

-- floor(a * b / c) for a < c < 2^51: by long division, bit by bit, where the product may pass 2^53.
local function mul_div(a, b, c)
  local product = a * b
  if product < EXACT then return (product - product % c) / c end
  local quotient, rest, bit = 0, 0, 1
  while bit <= b do bit = bit * 2 end
  while bit > 1 do
    bit = bit / 2
    quotient, rest = quotient * 2, rest * 2
    if b >= bit then
      b, rest = b - bit, rest + a
    end
    while rest >= c do
      quotient, rest = quotient + 1, rest - c
    end
  end
  return quotient
end

-- The level in units of a record that may be of another quota; nil when the numbers cannot be.
local function carried(tokens, fraction, fraction_of, at, capacity, unit)
  if at > LATEST or fraction >= fraction_of or fraction_of > LARGEST then return nil end
  if tokens >= capacity then return tokens < EXACT and capacity * unit or nil end
  if fraction_of == unit then return tokens * unit + fraction end
  return tokens * unit + mul_div(fraction, unit, fraction_of)
end

-- The level and the time after refilling, and a notice if the clock is behind.
local function refilled(level, at, now, full, gain)
  if at > now then return level, at, at > now + CLOCK_TOLERANCE and CLOCK_BEHIND or 0 end
  -- The product may be inexact, but only above 2^53, where the bucket is full anyway.
  local gained = (now - at) * gain
  if gained >= full - level then return full, now, 0 end
  return level + gained, now, 0
end

-- Microseconds until a bucket has gained up to a level, of which it reaches more than the ceiling only after the wait.
local function time_to(goal, level, ceiling, wait, gain)
  local time = goal > level and ceil_div(goal - level, gain) or 0
  if goal > ceiling then
    local after = wait + ceil_div(goal - ceiling, gain)
    if after > time then return after end
  end
  return time
end

-- A step of a bucket that had that level at that time: first what it leaves, the level, its part of a token and the time;
-- then the first numbers that a step returns.
local function take(level, at, now, cost, full, gain, unit)
  local notice, retry, next_after = 0, 0, 0
  if at <= now then
    -- As in `refilled`; a call of it would cost more than all this.
    local gained = (now - at) * gain
    if gained >= full - level then level = full else level = level + gained end
    at = now
  elseif at > now + CLOCK_TOLERANCE then
    notice = CLOCK_BEHIND
  end
  local price = cost * unit
  if level < price then retry = ceil((price - level) / gain) else level = level - price end
  local part = level % unit
  if level < full then next_after = ceil((unit - part) / gain) end
  return level, part, at, retry, (level - part) / unit, ceil((full - level) / gain), next_after, notice
end

-- The level as if so many tokens had not been charged then, as far as that is sure.
local function credited(level, at, charged_at, tokens, full, gain, unit)
  local worth = tokens * unit
  if at > charged_at then worth = worth - (at - charged_at) * gain end
  if worth <= 0 then return level end
  return worth >= full - level and full or level + worth
end
