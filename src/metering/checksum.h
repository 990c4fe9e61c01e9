/* CRC-32C (Castagnoli), as RFC 3720 appendix B.4 has it. Pure. */
#ifndef AT_METERING_CHECKSUM_H
#define AT_METERING_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint32_t at_meter_crc(const void *data, size_t len);

#endif
