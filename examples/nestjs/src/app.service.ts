import { setTimeout as sleep } from 'node:timers/promises';

import { Injectable, Logger, OnApplicationShutdown } from '@nestjs/common';

@Injectable()
export class AppService implements OnApplicationShutdown {
  private readonly logger = new Logger(AppService.name);

  async whoAmI(): Promise<{ pid: number }> {
    await sleep(50); // stands for the database an everyday app waits for
    return { pid: process.pid };
  }

  async echo(body: unknown): Promise<unknown> {
    await sleep(50);
    return body;
  }

  onApplicationShutdown(signal?: string): void {
    this.logger.log(`closed after ${signal ?? 'close()'}`);
  }
}
