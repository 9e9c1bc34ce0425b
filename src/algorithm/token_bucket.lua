-- Token bucket, the twin of token_bucket.rs: the same integers, all below 2^53, so that doubles hold them exactly.

-- floor(fraction * unit / fraction_of) by long division, bit by bit: the product may pass 2^53. All are below 2^51.
local function rescaled(fraction, unit, fraction_of)
  local quotient, rest, bit = 0, 0, 1
  while bit <= unit do bit = bit * 2 end
  while bit > 1 do
    bit = bit / 2
    quotient, rest = quotient * 2, rest * 2
    if unit >= bit then
      unit, rest = unit - bit, rest + fraction
    end
    while rest >= fraction_of do
      quotient, rest = quotient + 1, rest - fraction_of
    end
  end
  return quotient
end

algorithms.tokenbucket = {
  read = function(key)
    return redis.pcall('HMGET', key, 'tokens', 'last_refill', 'fraction', 'fraction_of')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local tokens, at = integer(record[1]), integer(record[2])
    local fraction, fraction_of = integer(record[3]), integer(record[4])
    local full, notice, level = capacity * unit, 0, nil
    if tokens and at and fraction and fraction_of
        and at <= LATEST and fraction < fraction_of and fraction_of <= LARGEST_UNIT then
      if tokens >= capacity then
        level = full
      elseif fraction_of == unit then
        level = tokens * unit + fraction
      else
        level = tokens * unit + rescaled(fraction, unit, fraction_of)
      end
      if at > now then
        if at > now + CLOCK_TOLERANCE then notice = CLOCK_BEHIND end
      else
        -- The product may be inexact, but only above 2^53, where the bucket is full anyway.
        local gained = (now - at) * gain
        if gained >= full - level then level = full else level = level + gained end
        at = now
      end
    else
      level, at = full, now
      if record[1] or record[2] or record[3] or record[4] then notice = FOREIGN_RECORD end
    end

    local fraction_before, price = level % unit, cost * unit
    local remaining, reset, next_after = (level - fraction_before) / unit, ceil_div(full - level, gain), 0
    if level < full then next_after = ceil_div(unit - fraction_before, gain) end
    if level < price then
      return ceil_div(price - level, gain), remaining, reset, next_after, 0, 0, 0, notice
    end

    local left = level - price
    local fraction_left = left % unit
    local tokens_left, fresh_after = (left - fraction_left) / unit, ceil_div(full - left, gain)
    return 0, remaining, reset, next_after,
      tokens_left, fresh_after, ceil_div(unit - fraction_left, gain), notice,
      at + fresh_after, tokens_left, at, fraction_left, unit
  end,

  write = function(key, fresh_at, tokens, at, fraction, fraction_of)
    return redis.pcall('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction, 'fraction_of', fraction_of)
  end,
}
