/* The device's end of the serial line of edge/plants/serial.py, for a microcontroller: C99, no heap.
 *
 * Give every byte that arrives to device_receive, call device_tick at the rate at which observations shall be sent, and
 * device_watch as often as possible: it turns the motors off when the computer falls silent. It is called from one
 * thread, so nothing that it calls may wait. Where something might, as some boards' USB does when the host holds the port
 * open and reads nothing, turn on the microcontroller's own watchdog too, and turn the motors off when it starts.
 *
 * It counts on a little-endian machine with IEEE floats, as AVR, ARM, ESP32 and RISC-V are. Not yet run on hardware:
 * tests/edge/test_serial_device.py compiles it and lets it talk to the Python side.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OBSERVATIONS 3
#define ACTIONS 1
#define SILENCE_MS 200

/* To be written for each board. */
uint32_t clock_ms(void);
void line_write(const uint8_t *bytes, size_t n); /* must never wait: drops the frame if there is no room for all of it */
void sense(float observation[OBSERVATIONS]);
void drive(const float action[ACTIONS]); /* within the limits of the motors, whatever it is given */
void motors_off(void);
void go_to_start(void); /* must return soon, for nothing is received meanwhile */

enum { HEADER = 5, CRC = 2, ACTION_PAYLOAD = 2 + 4 * ACTIONS, OBSERVATION_PAYLOAD = 2 + 4 * OBSERVATIONS };

static uint8_t frame[HEADER + ACTION_PAYLOAD + CRC];
static size_t have;
static bool moving;
static uint32_t last_action_ms;

static uint16_t crc16(const uint8_t *bytes, size_t n) {
    uint16_t crc = 0;
    while (n--) {
        crc ^= (uint16_t)((uint16_t)*bytes++ << 8);
        for (int bit = 0; bit < 8; bit++) crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

static void obey(void) {
    moving = frame[2] == 'A';
    if (moving) {
        float action[ACTIONS];
        memcpy(action, frame + HEADER + 2, sizeof action);
        last_action_ms = clock_ms();
        drive(action);
    } else {
        motors_off();
        go_to_start();
    }
}

void device_receive(uint8_t byte) {
    frame[have++] = byte;
    while (have > 0) {
        size_t payload = have < 3 ? 0 : frame[2] == 'A' ? ACTION_PAYLOAD : frame[2] == 'R' ? 2 : 0;
        size_t whole = HEADER + payload + CRC;
        bool wrong = frame[0] != 0xA5 || (have > 1 && frame[1] != 0x5A) || (have > 2 && payload == 0) ||
                     (have > 3 && frame[3] != (payload & 0xFF)) || (have > 4 && frame[4] != payload >> 8);
        if (!wrong && have < whole) return;
        if (!wrong) wrong = crc16(frame + 2, whole - 2 - CRC) != (frame[whole - 2] | (uint16_t)frame[whole - 1] << 8);
        if (!wrong) obey();
        /* What looked like a frame may have a real one inside. */
        size_t used = wrong ? 1 : whole;
        have -= used;
        memmove(frame, frame + used, have);
    }
}

void device_watch(void) {
    /* The computer is dead or unplugged. It is not the one to turn the motors off then. */
    if (moving && clock_ms() - last_action_ms > SILENCE_MS) {
        motors_off();
        moving = false;
    }
}

void device_tick(void) {
    static uint16_t sequence;
    device_watch();
    float observation[OBSERVATIONS];
    sense(observation);
    uint8_t out[HEADER + OBSERVATION_PAYLOAD + CRC] = {0xA5, 0x5A, 'O'};
    uint16_t payload = OBSERVATION_PAYLOAD;
    sequence++;
    memcpy(out + 3, &payload, 2);
    memcpy(out + HEADER, &sequence, 2);
    memcpy(out + HEADER + 2, observation, sizeof observation);
    uint16_t crc = crc16(out + 2, sizeof out - 2 - CRC);
    memcpy(out + sizeof out - CRC, &crc, CRC);
    line_write(out, sizeof out);
}
